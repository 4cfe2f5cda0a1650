"""Paths that are no good, by every door that takes one: refused in one sentence before anything is loaded."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from optimum_sleb import OutputFolderError, PruningReport, SLEBError, SLEBPruner
from optimum_sleb.hub.folder import check_output_folder, write_folder

from ..conftest import make_tokenizer
from ..families import tiny_model
from . import harness
from .harness import Outcome, assert_refused


@pytest.fixture
def run_command() -> Callable[..., Outcome]:
    return lambda *arguments: harness.run_command([*arguments, "--device", "cpu"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dense model, a pruned one and a text."""
    place = tmp_path_factory.mktemp("place")
    tiny_model().save_pretrained(place / "dense")
    make_tokenizer(False).save_pretrained(place / "dense")
    pruner = SLEBPruner.from_pretrained(place / "dense")
    pruner.remove([2])
    pruner.save_pretrained(place / "pruned")
    (place / "text.txt").write_text("w3 w4 " * 200)
    (place / "file").write_text("")
    (place / "loop").symlink_to("loop")
    return place


# What cannot be a name, and what the sentence tells.
OUTPUTS = {
    "the folder of work": (".", "cannot be replaced"),
    "nothing": ("", "cannot be replaced"),
    "the folder of work, at length": ("sub/..", "cannot be replaced"),
    "the root": ("/", "cannot be replaced"),
    "the root, at length": ("/tmp/../..", "cannot be replaced"),
    "a mount": ("/proc", "cannot be replaced"),
    "no place to write": ("/proc/out", "choose another folder"),
    "244 bytes": ("n" * 244, "File name too long"),
    "250 bytes": ("n" * 250, "File name too long"),
    "255 bytes": ("n" * 255, "File name too long"),
    "256 bytes": ("n" * 256, "File name too long"),
    "too many bytes of UTF-8": ("ü" * 128, "File name too long"),
    "a parent of 300 bytes": ("n" * 300 + "/out", "File name too long"),
    "a path of 5000 bytes": ("n/" * 2500, "File name too long"),
    "not UTF-8": (os.fsdecode(b"out\xff"), "cannot be the name of a folder"),
    "a parent that is not UTF-8": (os.fsdecode(b"\xff/out"), "cannot be the name of a folder"),
    "a null byte": ("o\0ut", "cannot be the name of a folder"),
    "a file": ("file", "is a file"),
    "within a file": ("file/out", "choose another folder"),
    "a loop of links": ("loop", "is a file"),
    "within a loop of links": ("loop/out", "choose another folder"),
    "a device": ("/dev/null", "is a file"),
    "a model": ("pruned", "already holds a model"),
    "a link to a model": ("link", "already holds a model"),
}


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("something was loaded before the folder was refused")

    monkeypatch.setattr("optimum_sleb.base.load_model", fail)
    monkeypatch.setattr("optimum_sleb.models.placement.load_without_weights", fail)


@pytest.fixture
def at(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    (place / "sub").mkdir(exist_ok=True)
    if not (place / "link").is_symlink():
        (place / "link").symlink_to("pruned")
    return place


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("door", ["prune", "remove", "check", "save"])
@pytest.mark.parametrize("what", OUTPUTS)
def test_output(what: str, door: str, at: Path, run_command: Callable[..., Outcome]) -> None:
    (output, sentence), before = OUTPUTS[what], sorted(os.listdir(at))
    if door in ("check", "save"):
        with pytest.raises(OutputFolderError, match=sentence) as error:
            if door == "check":
                check_output_folder(Path(output), overwrite=False)
            else:
                write_folder(Path(output), lambda folder: pytest.fail("it was filled"), overwrite=False)
        assert "\n" not in str(error.value)
    else:
        how = ("--num-blocks", 1, "--dataset", "text.txt") if door == "prune" else ("--blocks", 1)
        assert_refused(run_command(door, "--model", "dense", "--output", output, *how), sentence)
    assert sorted(os.listdir(at)) == before


@pytest.mark.parametrize("output", ["link-to-folder", "dangling", "n" * 238, "ünï cödé", "a\nb", "-x", "deep/er/out"])
def test_output_that_is_good(output: str, at: Path, run_command: Callable[..., Outcome]) -> None:
    if output == "link-to-folder":
        (at / "target").mkdir()
        (at / output).symlink_to("target")
    elif output == "dangling":
        (at / output).symlink_to("made/here")
    outcome = run_command("remove", "--model", "dense", "--blocks", 1, f"--output={output}")
    assert outcome.code == 0, outcome.err
    assert PruningReport.load(at / output).removed_blocks == (1,)
    assert (at / output).is_symlink() == (output in ("link-to-folder", "dangling"))


NAMES = {
    "256 bytes": "n" * 256,
    "300 bytes in a folder": "sub/" + "n" * 300,
    "bytes of UTF-8": "ü" * 200,
    "5000 bytes": "n" * 5000,
    "not UTF-8": os.fsdecode(b"n\xff"),
    "a file": "file",
    "within a file": "file/n",
    "a loop": "loop",
}
DOORS: dict[str, Callable[[str], tuple[object, ...]]] = {
    "model of check": lambda name: ("check", "--model", name),
    "model of prune": lambda name: (
        "prune",
        "--model",
        name,
        "--num-blocks",
        1,
        "--output",
        "o",
        "--dataset",
        "text.txt",
    ),
    "model of remove": lambda name: ("remove", "--model", name, "--blocks", 1, "--output", "o"),
    "model of evaluate": lambda name: ("evaluate", "--model", name, "--tasks", "text.txt"),
    "model of a card": lambda name: ("evaluate", "--model", name, "--tasks", "text.txt", "--update-card"),
    "model of benchmark": lambda name: ("benchmark", "--model", name),
    "data of prune": lambda name: ("prune", "--model", "dense", "--num-blocks", 1, "--output", "o", "--dataset", name),
    "data of evaluate": lambda name: ("evaluate", "--model", "dense", "--tasks", name),
    "report": lambda name: ("remove", "--report", name, "--output", "o"),
    "report of a curve": lambda name: ("evaluate", "--report", name, "--curve", "--tasks", "text.txt"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("what", NAMES)
def test_name(what: str, door: str, at: Path, run_command: Callable[..., Outcome]) -> None:
    outcome = run_command(*DOORS[door](NAMES[what]))
    assert_refused(outcome, NAMES[what].encode(errors="replace").decode()[:1])
    assert not (at / "o").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["n" * 256, "ü" * 200 + ".safetensors", "n" * 5000, "file/n", os.fsdecode(b"n\xff")])
def test_shard_in_an_index(name: str, tmp_path: Path, at: Path) -> None:
    import json
    import shutil

    shutil.copytree(at / "dense", tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(SLEBError, match=r"index\.json"):
        SLEBPruner.from_pretrained(tmp_path / "m")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["n" * 256, "/" + "n" * 300, "n" * 5000, "ü" * 200, "file/n", ""])
def test_base_model_in_a_report(name: str, at: Path, run_command: Callable[..., Outcome]) -> None:
    """The card is written without the dense model's; `remove` says that there is no such model."""
    import json

    values = PruningReport.load(at / "pruned").to_dict()
    (at / "r.json").write_text(json.dumps({**values, "base_model": name}))
    pruner = SLEBPruner.from_pretrained(at / "dense")
    pruner.apply(PruningReport.load(at / "r.json"))
    pruner.save_pretrained(at / "again", overwrite=True)
    assert_refused(run_command("remove", "--report", "r.json", "--output", "o"))
