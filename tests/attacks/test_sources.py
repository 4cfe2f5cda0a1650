"""Strange names, files and folders as calibration data: refused in one sentence, or the right windows."""

import datetime
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from optimum_sleb import SLEBConfig
from optimum_sleb.calibration.check import check_data
from optimum_sleb.calibration.sources import load_calibration

from ..calibration.test_readers import PACKERS, TEXTS, as_arrow, as_arrow_file, as_csv, as_jsonl, as_parquet, as_text
from ..conftest import make_tokenizer
from .harness import assert_refused, assert_right, call, plant, run_command

NOISE = random.Random(0).randbytes(4000)
MUCH = TEXTS * 500


def empty_parquet() -> bytes:
    file = io.BytesIO()
    datasets.Dataset.from_dict({"text": TEXTS}).select([]).to_parquet(file)
    return file.getvalue()


def flipped(content: bytes) -> bytes:
    return content[:200] + b"\xff" * 40 + content[240:]


def tried(dataset: object, **recipe: object):
    """The windows, and that the look before loading does not let through what loading refuses at once."""
    config = SLEBConfig(sparsity=0.2, window_length=5, dataset=str(dataset), **recipe)
    loaded = call(load_calibration, None, make_tokenizer(add_bos=False), config)
    return loaded, call(check_data, config)


# What the sentence names, if anything beside the file.
DAMAGED: dict[str, tuple[bytes, str]] = {
    "no header.csv": ("\n".join(TEXTS).encode(), "has no field 'text'"),
    "header only.csv": (b"text\n", "holds no rows"),
    "header only.tsv": (b"id\ttext\n", "holds no rows"),
    "blank.csv": (b"\n\n", "cannot be read as csv"),
    "comma in a text.csv": (b"text\nw3, w4 w5\nw6, w7\n", "more fields than the header"),
    "two commas.csv": (b"text\nw3, w4, w5\nw6\n", "more fields than the header"),
    "comma later.csv": (b"text\nw3\nw3,w4\n", "cannot be read as csv"),
    "open quote.csv": (b'text\n"w3 w4\nw5\n', "cannot be read as csv"),
    "numbers.csv": (b"text\n5\n6\n", "a value of type int"),
    "nul.csv": (b"text\nw3\0w4\n", "NUL"),
    "nul.jsonl": (b'{"text": "w3\\u0000w4"}\n', "NUL"),
    "nul.txt": (b"w3 w4\0" * 90, "NUL"),
    "utf 16 without a mark.txt": ("w3 w4 ".encode("utf-16-le") * 90, "NUL"),
    "noise.csv": (NOISE, ""),
    "noise.jsonl": (NOISE, ""),
    "noise.json": (NOISE, ""),
    "noise.parquet": (NOISE, ""),
    "noise.arrow": (NOISE, ""),
    "noise.txt": (NOISE, "UTF-8"),
    "cut.arrow": (as_arrow(TEXTS)[:-60], "cannot be read as arrow"),
    "flipped.arrow": (flipped(as_arrow(TEXTS)), "cannot be read as arrow"),
    "cut file.arrow": (as_arrow_file(TEXTS)[:-60], "cannot be read as arrow"),
    "no rows.arrow": (as_arrow([]), "holds no rows"),
    "no rows.parquet": (empty_parquet(), "holds no rows"),
    "cut.parquet": (as_parquet(TEXTS)[:-60], "cannot be read as parquet"),
    "other field.json": (b'{"data": [{"text": "w3"}]}', "has no field 'text', only 'data'"),
    "deep.json": (b"[" * 100_000, "cannot be read as json"),
    "mixed.jsonl": (b'{"text":"w3"}\n[1]\n', "cannot be read as json"),
    "a pair in halves.csv": ("text\nw3 \ud800\n".encode("utf-8", "surrogatepass"), "encoding"),
    "packed twice.jsonl.gz.gz": (PACKERS[".gz"](PACKERS[".gz"](as_jsonl(TEXTS))), "no suffix of a data file"),
    "packed.parquet.gz": (PACKERS[".gz"](as_parquet(TEXTS)), "outer compression"),
    "packed.zip": (as_text(TEXTS), "no suffix of a data file"),
    "what.gz": (PACKERS[".gz"](as_text(TEXTS)), "no suffix of a data file"),
    "document.docx": (as_text(TEXTS), "no suffix of a data file"),
    "no suffix": (as_text(TEXTS), "no suffix of a data file"),
    ".jsonl": (as_jsonl(TEXTS), "no suffix of a data file"),
    "a::b.jsonl": (as_jsonl(TEXTS), "rename it"),
    "empty.csv": (b"", "is empty"),
}
for suffix, make in ((".txt", as_text), (".csv", as_csv), (".jsonl", as_jsonl)):
    for packed in (".gz", ".bz2", ".xz", ".zst"):
        DAMAGED[f"cut{suffix}{packed}"] = (PACKERS[packed](make(MUCH))[:-20], "")
        DAMAGED[f"no archive{suffix}{packed}"] = (b"neither packed nor whole", "")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file(name: str, tmp_path: Path) -> None:
    content, told = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    loaded, checked = tried(tmp_path / name, max_windows=None)
    assert_refused(loaded, name, told)
    if "cut" not in name and "later" not in name and "mixed" not in name:
        assert_refused(checked, name, told)


GOOD = [
    "-x.csv",
    "~.csv",
    "#.csv",
    "a%20b.csv",
    "a\nb.csv",
    "zip:--a.csv",
    "hf:x.csv",
    "[a].csv",
    "*.csv",
    "a+b.csv",
    "a:0.5.csv",
]


@pytest.mark.parametrize("name", GOOD)
def test_a_strange_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = name if name.endswith(".csv") else f"{name}.csv"
    Path(name).write_bytes(as_csv(TEXTS))
    for dataset in (name, tmp_path / name, f"{name}+{name}", f"{name}:0.5+{name}:0.5"):
        loaded, checked = tried(dataset, max_windows=2)
        assert_right(loaded)
        assert_right(checked)


def make_fifo(place: Path) -> str:
    os.mkfifo(place / "pipe.jsonl")
    return "pipe.jsonl"


def make_folder(place: Path, *files: str) -> str:
    (place / "folder").mkdir()
    for file in files:
        (place / "folder" / file).write_bytes(as_jsonl(TEXTS))
    return "folder"


def make_deep(place: Path) -> str:
    (place / "folder" / "below").mkdir(parents=True)
    (place / "folder" / "below" / "a.jsonl").write_bytes(as_jsonl(TEXTS))
    return "folder"


def make_loop(place: Path) -> str:
    (place / "loop.jsonl").symlink_to("loop.jsonl")
    return "loop.jsonl"


def make_saved(place: Path, **files: bytes) -> str:
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(place / "saved")
    for name, content in files.items():
        (place / "saved" / name.replace("_json", ".json")).write_bytes(content)
    return "saved"


def make_saved_without_data(place: Path) -> str:
    make_saved(place)
    next((place / "saved").glob("*.arrow")).unlink()
    return "saved"


def make_saved_elsewhere(place: Path) -> str:
    """A state that names a file outside the folder."""
    (place / "secret.arrow").write_bytes(as_arrow(["w3 " * 50]))
    state = {"_data_files": [{"filename": "../nothing.arrow"}], "_fingerprint": "a", "_format_columns": None}
    return make_saved(
        place, state_json=json.dumps({**state, "_format_kwargs": {}, "_format_type": None, "_split": None}).encode()
    )


PLACES: dict[str, tuple[Callable[[Path], str], str]] = {
    "a pipe": (make_fifo, "not an ordinary file"),
    "a device": (lambda place: "/dev/zero", "not an ordinary file"),
    "standard input": (lambda place: "/dev/stdin", ""),
    "a folder of the system": (lambda place: "/proc/self", ""),
    "an empty folder": (make_folder, "holds no data files"),
    "a folder with folders only": (make_deep, "**/*.parquet"),
    "two formats": (lambda place: make_folder(place, "a.jsonl", "b.csv"), "several formats (.jsonl, .csv)"),
    "a foreign file": (lambda place: make_folder(place, "a.jsonl", "b.exe"), "b.exe"),
    "only a readme": (lambda place: make_folder(place, "README.md"), "holds no data files"),
    "a pattern without a match": (lambda place: "*.jsonl", "No file matches '*.jsonl'"),
    "a broken pattern": (lambda place: "[.jsonl", "[.jsonl"),
    "a loop": (make_loop, "nor a file; name one that exists"),
    "a slip": (lambda place: "cahtt.jsonl", "'cahtt.jsonl' is neither a known data set"),
    "a slip in a folder": (lambda place: "data/chat.jsonl.gz", "nor a file; name one that exists"),
    "nothing": (lambda place: "", "neither a known data set"),
    "a plus": (lambda place: "+", "neither a known data set"),
    "many": (lambda place: "+" * 2000, "neither a known data set"),
    "a null byte": (lambda place: "a\0b", "neither a known data set"),
    "a null byte in a pattern": (lambda place: "a\0*", "neither a known data set"),
    "long": (lambda place: "n" * 5000, ""),
    "an address": (lambda place: "https://example.org/a.jsonl", "nor a file; name one that exists"),
    "another address": (lambda place: "hf://datasets/a/b", "neither a known data set"),
    "a user that cannot be": (lambda place: "a b/c", "neither a known data set"),
    "upwards": (lambda place: "../..", ""),
    "a weight of nothing": (lambda place: "c4:0+wikitext2:1", "a weight above 0"),
    "one weight of two": (lambda place: "c4:0.5+wikitext2", "a weight above 0"),
    "a negative weight": (lambda place: "c4:-1+wikitext2:1", "'c4:-1' is neither"),
    "a weight that is none": (lambda place: "c4:nan+wikitext2:1", "'c4:nan' is neither"),
    "a weight that leaves nothing": (lambda place: "c4:0.0001+wikitext2:1", "gets no window"),
    "saved without data": (make_saved_without_data, "saved"),
    "saved with a state that is no JSON": (lambda place: make_saved(place, state_json=b"{"), "saved"),
    "saved with a state that is a number": (lambda place: make_saved(place, state_json=b"5"), "saved"),
    "saved with an info that is a list": (lambda place: make_saved(place, dataset_info_json=b"[]"), "saved"),
    "saved elsewhere": (make_saved_elsewhere, "saved"),
}


@pytest.mark.parametrize("what", PLACES)
def test_a_strange_place(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, told = PLACES[what]
    dataset = make(tmp_path)
    for outcome in tried(dataset):
        assert_refused(outcome, told)
        assert outcome.seconds < 20


@pytest.mark.parametrize("name", ["evil.py", "saved.py", "__init__.py"])
def test_code_beside_the_data_is_not_run(name: str, tmp_path: Path) -> None:
    make_saved(tmp_path)
    for folder in (tmp_path / "saved", Path(shutil.copytree(tmp_path / "saved", tmp_path / "evil"))):
        plant(folder / name)
        for outcome in tried(folder):
            assert_right(outcome)


def test_a_date_is_no_text(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": [datetime.datetime(2020, 1, 1)]}).to_parquet(tmp_path / "a.parquet")
    for outcome in tried(tmp_path / "a.parquet"):
        assert_refused(outcome, "Row 0", "a value of type datetime")


@pytest.mark.parametrize("name", ["cahtt.jsonl", "no header.csv", "empty.csv", "document.docx"])
def test_prune_says_so_before_it_looks_at_the_model(name: str, tmp_path: Path) -> None:
    if name in DAMAGED:
        (tmp_path / name).write_bytes(DAMAGED[name][0])
    arguments = ["--model", tmp_path / "none", "--num-blocks", 1, "--output", tmp_path / "out"]
    outcome = run_command(["prune", *arguments, "--dataset", tmp_path / name])
    assert_refused(outcome, name)
    assert outcome.seconds < 10  # on a machine that does other work; test_check.py measures it
    assert not (tmp_path / "out").exists()
