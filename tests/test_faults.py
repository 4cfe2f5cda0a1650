"""Saving on a disk that fails: the old folder is as it was, the error is one sentence, and saving again works."""

import errno
import io
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from optimum_sleb import OutputFolderError, SLEBConfig, SLEBPruner
from optimum_sleb.hub.folder import write_folder

from .conftest import make_tokenizer
from .families import random_ids, tiny_model

disk_is_full_or_read_only = pytest.mark.reliability(
    "the disk is full or read-only while a model is saved, at every file, or the folder cannot take its name",
    lost="nothing: the old folder is as it was, and saving again succeeds",
)

Contents = dict[str, bytes]
# The tokenizer's own file may be written by its library in Rust, and the report takes its name when it is whole.
SURELY_WRITTEN = {"config.json", "sleb_config.json", f".sleb_report.json.{os.getpid()}.new", "README.md"}


def contents(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def pruner() -> SLEBPruner:
    """A pruner with every record that there is to save, for a model other than the one in the old folder."""
    pruner = SLEBPruner(tiny_model(seed=1), make_tokenizer(False))
    pruner.prune(SLEBConfig(num_blocks_to_remove=2, window_length=20), calibration=random_ids(2, 20))
    return pruner


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that holds an earlier pruned model, and a file of the user's."""
    first = SLEBPruner(tiny_model(), make_tokenizer(False))
    first.remove([2])
    first.save_pretrained(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    return tmp_path / "out"


def fails_and_leaves(out: Path, pruner: SLEBPruner, fault: Any, message: str) -> None:
    before = contents(out)
    with fault, pytest.raises(OutputFolderError, match=message) as error:
        pruner.save_pretrained(out, overwrite=True)
    assert "\n" not in str(error.value)
    assert contents(out) == before
    assert os.listdir(out.parent) == ["out"], "nothing is left beside the folder"


def succeeds(out: Path, pruner: SLEBPruner) -> None:
    pruner.save_pretrained(out, overwrite=True)
    again = AutoModelForCausalLM.from_pretrained(out)
    ids = random_ids(1, 12)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, pruner.model(ids).logits)
    assert (out / "notes.txt").read_text() == "mine"
    assert os.listdir(out.parent) == ["out"]


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The operating system itself refuses to write more, to safetensors and tokenizers as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def failing(number: int, calls: list[str], module: Any, name: str, code: int, chosen: Callable[..., bool]) -> Iterator:
    """The call of a function with this number fails; what was written before stays half written."""
    real = getattr(module, name)

    def call(path: Any, *args: Any, **kwargs: Any) -> Any:
        if not chosen(path, *args, **kwargs):
            return real(path, *args, **kwargs)
        calls.append(str(path))
        if len(calls) - 1 == number:
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, call)
        if (module, name) == (io, "open"):
            patch.setattr("builtins.open", call)
        yield


def opens_for_writing(path: Any, mode: str = "r", *_: Any, **__: Any) -> bool:
    return ".out." in str(path) and not set(mode).isdisjoint("wax+")


def always(path: Any, *_: Any, **__: Any) -> bool:
    return ".out." in str(path)


@pytest.mark.long
@disk_is_full_or_read_only
@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
@pytest.mark.parametrize("size", [0, 1, 100, 500, 900, 1_500, 3_000, 10_000, 50_000, 100_000, 110_000])
def test_disk_full_by_the_operating_system(size: int, pruner: SLEBPruner, out: Path) -> None:
    fails_and_leaves(
        out, pruner, files_no_larger_than(size), r"cannot be written .*too large.*the folder is as it was"
    )
    succeeds(out, pruner)


@pytest.mark.long
@disk_is_full_or_read_only
@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_disk_full_within_the_tokenizer(out: Path) -> None:
    backend = Tokenizer(models.WordLevel({f"a long word with number {number}": number for number in range(20_000)}))
    pruner = SLEBPruner(tiny_model(), PreTrainedTokenizerFast(tokenizer_object=backend))
    pruner.remove([2])
    fails_and_leaves(out, pruner, files_no_larger_than(300_000), r"cannot be written .*too large")


@pytest.mark.long
@disk_is_full_or_read_only
@pytest.mark.tries(len(SURELY_WRITTEN))
def test_disk_full_at_every_file(pruner: SLEBPruner, out: Path) -> None:
    before = contents(out)
    calls: list[str] = []
    with failing(-1, calls, io, "open", errno.ENOSPC, opens_for_writing):
        pruner.save_pretrained(out, overwrite=True)
    names = [Path(call).name for call in calls]
    assert {*names} >= SURELY_WRITTEN, names
    for path in out.iterdir():
        path.unlink()
    for name, content in before.items():
        (out / name).write_bytes(content)
    for number in range(len(calls)):
        fault = failing(number, [], io, "open", errno.ENOSPC, opens_for_writing)
        fails_and_leaves(out, pruner, fault, "cannot be written .*No space left on device.*the folder is as it was")
    succeeds(out, pruner)


@pytest.mark.long
@disk_is_full_or_read_only
@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_no_folder_can_be_made(code: int, pruner: SLEBPruner, out: Path) -> None:
    fault = failing(0, [], os, "mkdir", code, always)
    fails_and_leaves(out, pruner, fault, f"out cannot be written .*{os.strerror(code)}.*choose another folder")
    succeeds(out, pruner)


@pytest.mark.long
@disk_is_full_or_read_only
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_folder_cannot_take_its_name(number: int, pruner: SLEBPruner, out: Path) -> None:
    fault = failing(number, [], os, "rename", errno.EACCES, lambda old, new: ".out." in f"{old}{new}")
    fails_and_leaves(out, pruner, fault, "cannot be written .*the folder is as it was")
    succeeds(out, pruner)


@pytest.mark.long
def test_the_old_folder_cannot_be_deleted(pruner: SLEBPruner, out: Path) -> None:
    fault = failing(0, [], os, "rmdir", errno.EACCES, lambda path, **_: str(path).endswith(".old"))
    with fault, pytest.warns(UserWarning, match=r"holds the new model, but .*\.old of the old one cannot be deleted"):
        pruner.save_pretrained(out, overwrite=True)
    assert len(AutoModelForCausalLM.from_pretrained(out).model.layers) == 4
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.warns(UserWarning, match="the model that it replaced was deleted"):
        succeeds(out, pruner)


@disk_is_full_or_read_only
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no place that even root cannot write to")
def test_a_place_that_is_really_read_only() -> None:
    with pytest.raises(OutputFolderError, match=r"/proc/out cannot be written .*choose another folder"):
        write_folder(Path("/proc/out"), lambda folder: None, overwrite=False)


@disk_is_full_or_read_only
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent(pruner: SLEBPruner, out: Path) -> None:
    out.parent.chmod(0o555)
    try:
        before = contents(out)
        with pytest.raises(OutputFolderError, match="cannot be written .*choose another folder"):
            pruner.save_pretrained(out, overwrite=True)
        assert contents(out) == before
    finally:
        out.parent.chmod(0o755)


@disk_is_full_or_read_only
def test_no_room_for_what_is_pushed() -> None:
    fresh = SLEBPruner(tiny_model())
    fresh.remove([2])
    with files_no_larger_than(3_000), pytest.raises(OutputFolderError, match="cannot be written .*too large"):
        fresh.push_to_hub("me/anything")
