"""`optimum-cli sleb export`: the three formats, and what each refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from optimum_sleb.report.records import HealingRecord

from ..attacks.harness import assert_refused, assert_right, run_command
from ..hub.test_gguf import WORKS, put
from ..report.test_report import make_report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the command reads of a model's folder."""
    folder = tmp_path / "pruned"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    make_report().save(folder)
    return folder


@pytest.mark.parametrize("option", ["--model", "--report"])
def test_texts_are_printed_or_written(option: str, folder: Path, tmp_path: Path) -> None:
    printed = run_command(["export", option, folder, "--format", "prune-layers"])
    assert_right(printed)
    assert printed.out == "1,2,4\n"
    file = tmp_path / "cut.yaml"
    written = run_command(["export", option, folder, "--format", "mergekit-yaml", "--output", file])
    assert_right(written)
    assert written.out == f"saved to {file}\n"
    assert len(yaml.safe_load(file.read_text())["slices"]) == 3
    words = ["export", option, folder, "--format", "mergekit-yaml", "--json", "--base-model", "a/b"]
    told = json.loads(run_command(words).out)
    assert (told["file"], told["text"]) == (None, file.read_text().replace("me/dense", "a/b"))


def test_gguf(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.gguf"
    words = ["export", "--model", folder, "--format", "gguf", "--output", output]
    done = run_command([*words, "--llama-cpp", put(tmp_path, WORKS), "--gguf-type", "q8_0"])
    assert_right(done)
    assert output.read_text() == f"GGUF of {folder} as q8_0"
    again = run_command([*words, "--llama-cpp", tmp_path])
    assert_refused(again, output, "--overwrite")
    done = run_command([*words, "--llama-cpp", tmp_path, "--overwrite", "--json"])
    assert json.loads(done.out) == {"file": str(output), "bytes": output.stat().st_size}


def test_a_plain_cut_of_a_healed_model_is_told(folder: Path) -> None:
    replace(make_report(), healing=(HealingRecord("LoRA", "c4", 10, 5.0),)).save(folder)
    words = ["export", "--report", folder, "--format", "prune-layers"]
    done = run_command(words)
    assert (done.out, "without the compensation or healing" in done.err) == ("1,2,4\n", True)
    assert run_command([*words, "--quiet"]).err == ""


REFUSED = {
    "a report alone": (["--report", "F", "--format", "gguf", "--output", "x"], "--model"),
    "no file": (["--model", "F", "--format", "gguf"], "--output"),
    "no converter": (["--model", "F", "--format", "gguf", "--output", "T/x", "--llama-cpp", "T"], "--llama-cpp"),
    "no model": (["--model", "T", "--format", "gguf", "--output", "T/x", "--llama-cpp", "C"], "--model"),
    "a base model of a GGUF file": (
        ["--model", "F", "--format", "gguf", "--output", "x", "--base-model", "y"],
        "gguf",
    ),
    "a converter of a list": (["--model", "F", "--format", "prune-layers", "--llama-cpp", "C"], "--llama-cpp"),
    "a type of a merge": (["--model", "F", "--format", "mergekit-yaml", "--gguf-type", "f32"], "--gguf-type"),
    "an unknown type": (["--model", "F", "--format", "gguf", "--gguf-type", "q4_k_m"], "q4_k_m"),
    "no such folder": (["--model", "F", "--format", "prune-layers", "--output", "T/none/x"], "--output"),
    "a file that is a folder": (["--model", "F", "--format", "prune-layers", "--output", "T"], "--output"),
    "no report": (["--report", "T/none", "--format", "prune-layers"], "none"),
    "a folder without a report": (["--model", "T", "--format", "mergekit-yaml"], "sleb_report.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, folder: Path, tmp_path: Path) -> None:
    words, named = REFUSED[case]
    converter = tmp_path / "llama.cpp"
    converter.mkdir()
    places = {"F": folder, "T": tmp_path, "C": put(converter, WORKS)}
    words = [str(places[word]) if word in places else word.replace("T/", f"{tmp_path}/") for word in words]
    before = sorted(tmp_path.rglob("*"))
    assert_refused(run_command(["export", *words]), named)
    assert sorted(tmp_path.rglob("*")) == before
