"""A folder that several write, or whose writer is killed at any system call: nothing is lost, and nothing mixed."""

import os
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from optimum_sleb import OutputFolderError
from optimum_sleb.hub.folder import write_folder
from optimum_sleb.report.folder import lock_folder, recover, replace_files

killed_while_saving = pytest.mark.reliability(
    "killed at any system call of a save or of an update of the card, and again while that is finished",
    lost="nothing: the old model or the new one is whole, files of the user are beside it, nothing is left",
)
CALLS = ("rename", "replace", "fsync", "mkdir", "rmdir", "unlink")
SAVED = {"model.safetensors", "README.md", "config.json"}


def fill(version: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in SAVED:
            (folder / name).write_text(version)

    return write


def dies_at(number: int, act: Callable[[], object]) -> bool:
    """Run something in a child that is gone at its system call of this number; whether it came so far."""
    child = os.fork()
    if child == 0:
        calls = 0
        for name in CALLS:

            def call(real: Callable, *args: object, **kwargs: object) -> object:
                nonlocal calls
                calls += 1
                if calls > number:
                    os._exit(7)
                return real(*args, **kwargs)

            setattr(os, name, partial(call, getattr(os, name)))
        try:
            warnings.simplefilter("ignore")
            act()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 7), "an error in the child"
    return code == 7


def save(out: Path) -> None:
    write_folder(out, fill("new"), overwrite=True)


def first(out: Path) -> None:
    write_folder(out, fill("new"), overwrite=False)


def update(out: Path) -> None:
    with lock_folder(out) as folder:
        replace_files(folder, fill("new"))


def prepare(out: Path, act: Callable[[Path], None]) -> None:
    out.mkdir(parents=True)
    if act is not first:
        fill("old")(out)
        (out / "model-00001-of-00002.safetensors").write_text("old")
    (out / "training.log").write_text("mine")
    (out / "runs").mkdir()
    (out / "runs" / "events").write_text("mine")


def check(out: Path, act: Callable[[Path], None], ended: bool) -> None:
    assert os.listdir(out.parent) == ["out"]
    assert (out / "training.log").read_text() == (out / "runs" / "events").read_text() == "mine"
    found = {path.name: path.read_text() for path in out.iterdir() if path.is_file()}
    del found["training.log"]
    old = dict.fromkeys({*SAVED, "model-00001-of-00002.safetensors"}, "old") if act is not first else {}
    new = dict.fromkeys(SAVED, "new") | ({"model-00001-of-00002.safetensors": "old"} if act is update else {})
    assert found == new if ended else found in (old, new)


@pytest.mark.long
@killed_while_saving
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:An earlier process")
@pytest.mark.parametrize(
    "act",
    [pytest.param(act, marks=pytest.mark.tries(kills)) for act, kills in ((save, 66), (first, 46), (update, 36))],
)
def test_killed_at_every_system_call(act: Callable[[Path], None], tmp_path: Path) -> None:
    number, kills, died = 0, 0, True
    while died:
        again = 0
        while died:
            out = tmp_path / f"{number}-{again}" / "out"
            prepare(out, act)
            died = dies_at(number, lambda: act(out))  # noqa: B023
            # The one that tidies up is killed as well, at every seventh of its calls.
            died_again = dies_at(again, lambda: recover(out))  # noqa: B023
            recover(out)
            kills += died + died_again
            first_at_once(out)  # which deletes the file of a lock that nobody holds
            check(out, act, ended=not died)
            if not died_again:
                break
            again += 7
        number += 1
    assert kills == {save: 66, first: 46, update: 36}[act]


def test_a_replaced_file_is_never_half(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "README.md").write_text("half")
        raise OSError("disk full")

    prepare(tmp_path / "out", update)
    with pytest.raises(OutputFolderError, match="cannot be written .*disk full.*make room"):
        replace_files(tmp_path / "out", fails)
    check(tmp_path / "out", update, ended=False)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock_folder(tmp_path / "out"):
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    try:
        with pytest.raises(OutputFolderError, match=r"Another process is writing to .*out; wait until"):
            first_at_once(tmp_path / "out")
    finally:
        done.set()
        thread.join()
    first_at_once(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def first_at_once(out: Path) -> None:
    with lock_folder(out, seconds=0), lock_folder(out, seconds=0):  # this thread may lock it twice
        pass


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_many_processes_write_to_one_folder(tmp_path: Path) -> None:
    """Each adds its line; then each saves a model over the last one."""
    out = tmp_path / "out"
    prepare(out, save)

    def work(number: int) -> None:
        warnings.simplefilter("ignore")
        with lock_folder(out) as folder:
            text = (folder / "README.md").read_text()
            replace_files(folder, lambda fresh: (fresh / "README.md").write_text(f"{text} {number}"))

    run_together([lambda number=number: work(number) for number in range(12)])
    assert sorted((out / "README.md").read_text().split()[1:], key=int) == [str(number) for number in range(12)]
    run_together([lambda: save(out)] * 8)
    check(out, save, ended=True)


def run_together(acts: list[Callable[[], object]]) -> None:
    children = []
    for act in acts:
        child = os.fork()
        if child == 0:
            try:
                act()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(acts)
