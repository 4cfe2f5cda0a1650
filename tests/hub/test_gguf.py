"""GGUF by a converter that stands in for llama.cpp's; `make runtimes` runs the real one."""

import os
from pathlib import Path

import pytest

from optimum_sleb import ModelNotFoundError, UnsupportedModelError
from optimum_sleb.hub.gguf import CONVERTER, convert_to_gguf, find_converter

WORKS = """\
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--outfile")
parser.add_argument("--outtype")
args = parser.parse_args()
pathlib.Path(args.outfile).write_text(f"GGUF of {args.model} as {args.outtype}")
"""
FAILS = {
    "one that says why": ('import sys\nsys.exit("Model Foo is not supported\\n\\n")', "Model Foo is not supported"),
    "one that dies in the middle": (f"{WORKS}raise KeyError('rope')", "KeyError: 'rope'"),
    "one that says nothing": ("raise SystemExit(3)", "it said nothing"),
    "one that writes nothing": ("", "it said nothing"),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "pruned"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def put(folder: Path, code: str) -> Path:
    script = folder / CONVERTER
    script.write_text(code)
    script.chmod(0o755)
    return script


def test_the_file_is_what_the_converter_writes(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    output.write_text("old")
    assert convert_to_gguf(str(model), str(output), put(tmp_path, WORKS), "bf16") == output
    assert output.read_text() == f"GGUF of {model} as bf16"


@pytest.mark.parametrize("how", FAILS)
def test_a_conversion_that_fails_leaves_all_as_it_was(how: str, model: Path, tmp_path: Path) -> None:
    code, told = FAILS[how]
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "model.gguf"
    output.write_text("old")
    with pytest.raises(UnsupportedModelError, match=told):
        convert_to_gguf(str(model), str(output), put(tmp_path, code))
    assert output.read_text() == "old"
    assert list(output.parent.iterdir()) == [output]


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="--model"):
        convert_to_gguf(str(tmp_path), str(tmp_path / "x.gguf"), put(tmp_path, WORKS))


def test_where_the_converter_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = put(tmp_path, WORKS)
    assert find_converter(str(script)) == find_converter(str(tmp_path)) == script
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    assert find_converter(None) == script
    monkeypatch.setenv("PATH", "")
    for place in (None, str(tmp_path / "nothing"), ""):
        with pytest.raises(ModelNotFoundError, match="--llama-cpp"):
            find_converter(place)
