"""The folder of a model: one process writes it at a time, and a save that was killed is finished at the next touch."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from ..config import RECIPE_FILE_NAME
from ..errors import OutputFolderError

REPORT_FILE_NAME = "sleb_report.json"
CARD_FILE_NAME = "README.md"
PLOT_FILE_NAME = "sleb_loss.png"
# Progress of an unfinished search, in the folder that its model will be saved to.
JOURNAL_FILE_NAME = "sleb_journal.jsonl"
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
# Like the weights, these files are replaced or deleted together with the model that they describe.
SLEB_FILES = (RECIPE_FILE_NAME, REPORT_FILE_NAME, PLOT_FILE_NAME, CARD_FILE_NAME, JOURNAL_FILE_NAME)
_TEMPORARY_FILES = (".sleb_*.new", ".sleb.lock")

# A save fills the sibling `.NAME.token.new`. Once that is whole, it is renamed to `.due`, and from then on the save is
# finished, if need be by the next process that touches the folder: the user's files move into `.due`, the earlier
# folder becomes `.old`, `.due` takes its name, and `.old` is deleted. An `.old` beside no `.due` is never put back: it
# is the model that was replaced. Files within the folder are replaced in the same way, by `.sleb_update.due`.
_UPDATE = ".sleb_update.due"

SECONDS_TO_WAIT = 600.0


def real_folder(folder: str | Path) -> Path:
    """Return the folder that a path leads to, links followed; refuse names that the files of a model cannot hold."""
    try:
        directory = Path(os.path.realpath(folder))
        str(directory).encode()
    except (ValueError, OSError) as error:  # a null byte, or bytes that are not UTF-8
        raise OutputFolderError(
            f"{str(folder)!r} cannot be the name of a folder ({error}); choose another."
        ) from error
    return directory


@contextmanager
def lock_folder(folder: str | Path, seconds: float = SECONDS_TO_WAIT) -> Iterator[Path]:
    """Keep other processes and threads from writing a folder, and finish what a killed one left; yield its real path.
    Wait for another writer at most so many seconds, then raise OutputFolderError.
    """
    directory = real_folder(folder)
    missing = [parent for parent in directory.parents if not os.path.isdir(parent)]
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        file = _lock_file(directory)
        file.touch()  # filelock would wait where no file can be made
        lock = FileLock(file, is_singleton=True)
        _acquire(lock, directory, seconds)
    except OutputFolderError:
        raise
    except OSError as error:
        raise OutputFolderError(
            f"{directory} cannot be written ({error.strerror or error}); choose another folder."
        ) from error
    try:
        if lock.lock_counter == 1:
            _recover(directory)
        yield directory
    finally:
        with suppress(OSError):
            if lock.lock_counter == 1:
                file.unlink()
        lock.release()
        for parent in missing:
            with suppress(OSError):  # it is in use
                parent.rmdir()


def recover(folder: str | Path) -> None:
    """Finish what a process that was killed left of a folder and beside it, and tell of it in a warning."""
    with suppress(ValueError, OSError):
        if not _left_overs(Path(os.path.realpath(folder))):
            return
    with lock_folder(folder):
        pass


def new_sibling(directory: Path) -> Path:
    """Make an empty folder that a save can fill."""
    fresh = directory.with_name(f".{directory.name}.{uuid4().hex[:8]}.new")
    fresh.mkdir()
    return fresh


def swap(fresh: Path, directory: Path) -> None:
    """Give a filled sibling the name of the folder; other files of the earlier folder, such as logs, move into it.
    An error or a signal leaves the earlier folder, or the `.due` that the next touch makes the folder.
    """
    for path in (*fresh.rglob("*"), fresh):
        _sync(path)
    due = fresh.rename(fresh.with_suffix(".due"))
    moved: list[Path] = []
    try:
        _finish(due, directory, moved)
    except BaseException:  # a signal as well
        if due.exists():
            old = due.with_suffix(".old")
            if old.exists() and not directory.exists():
                old.rename(directory)
            for path in moved:
                if (due / path.name).exists():
                    (due / path.name).rename(path)
            due.rename(fresh)
        raise


def replace_files(directory: Path, fill: Callable[[Path], None]) -> None:
    """Replace the files of a folder that `fill` writes into an empty one: all of them, even if killed between two."""
    fresh = (directory / _UPDATE).with_suffix(".new")
    try:
        fresh.mkdir()
        fill(fresh)
        for path in (*fresh.iterdir(), fresh):
            _sync(path)
        fresh.rename(directory / _UPDATE)
        _finish_update(directory)
    except OSError as error:
        raise OutputFolderError(f"{directory} cannot be written ({error}); make room, and repeat it.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def weights_in(directory: Path) -> list[str]:
    """Return the names of the weight files in a folder, or nothing where there is none."""
    return [path.name for pattern in WEIGHT_FILES for path in directory.glob(pattern)]


def _lock_file(directory: Path) -> Path:
    if os.path.isdir(directory) and not os.access(directory.parent, os.W_OK):
        return directory / ".sleb.lock"  # no model can be saved to it, but a journal or a card can
    return directory.with_name(f".{directory.name}.lock") if directory.name else directory / ".sleb.lock"


def _acquire(lock: FileLock, directory: Path, seconds: float) -> None:
    try:
        lock.acquire(timeout=min(seconds, 1.0))
    except Timeout:
        try:
            if seconds <= 1.0:
                raise
            warnings.warn(f"Waiting for another process, which is writing to {directory}.", stacklevel=5)
            lock.acquire(timeout=seconds)
        except Timeout:
            raise OutputFolderError(
                f"Another process is writing to {directory}; wait until it has ended, or choose another folder."
            ) from None


def _left_overs(directory: Path) -> list[Path]:
    beside = directory.parent.glob(f".{escape(directory.name)}.{'[0-9a-f]' * 8}.*")
    return [path for path in (*beside, *directory.glob(".sleb_update.*")) if path.suffix in (".new", ".due", ".old")]


def _recover(directory: Path) -> None:
    found = sorted(_left_overs(directory), key=lambda path: (".new .due .old".index(path.suffix), path))
    try:
        messages = [_recover_one(path, directory) for path in found if path.exists()]
    except OSError as error:
        raise OutputFolderError(
            f"{directory}: what a killed process left in {found[0].parent} cannot be tidied ({error}); make room, or "
            "choose another folder."
        ) from error
    if messages:
        warnings.warn(f"An earlier process that wrote {directory} was killed: {'; '.join(messages)}.", stacklevel=4)


def _recover_one(left: Path, directory: Path) -> str:
    """Finish or delete one thing that a killed process left, and say so."""
    if left.suffix == ".new" and not (left.with_suffix(".old").exists() and not directory.exists()):
        shutil.rmtree(left)
        return "its unfinished copy was deleted"
    if left.name == _UPDATE:
        _finish_update(directory)
        return "its report and card were brought up to date"
    if left.suffix == ".old" and left.with_suffix(".due").exists():
        return f"{left} stays as well"
    if left.suffix == ".old":
        if not directory.exists():
            return f"{left} holds the model that it replaced, but what replaced it is gone; move it, or delete it"
        moved = _delete_replaced(left, directory)
        return f"the model that it replaced was deleted, and files moved here: {', '.join(moved) or 'none'}"
    if weights_in(directory) and left.with_suffix(".old").exists():
        return f"the model in {left} stays there, as another was put in its place; move it, or delete it"
    _finish(left, directory, [])
    return "the save was finished, so that the folder holds its model and the other files"


def _finish(due: Path, directory: Path, moved: list[Path]) -> None:
    old = due.with_suffix(".old")
    if directory.exists():
        if old.exists():  # killed before the folder had its name, and someone has made another since
            old = directory.with_name(f".{directory.name}.{uuid4().hex[:8]}.old")
        _move_other_files(directory, due, moved)
        directory.rename(old)
    due.rename(directory)
    _sync(directory.parent)
    if old.exists():
        _delete_replaced(old, directory)


def _delete_replaced(old: Path, directory: Path) -> list[str]:
    """Delete the folder of a replaced model, after moving other files that were added late; return their names."""
    moved: list[Path] = []
    try:
        _move_other_files(old, directory, moved)
        shutil.rmtree(old)
    except OSError as error:
        warnings.warn(
            f"{directory} holds the new model, but {old} of the old one cannot be deleted ({error}).", stacklevel=6
        )
    return [path.name for path in moved]


def _move_other_files(source: Path, target: Path, moved: list[Path]) -> None:
    """Move what is not part of a model; a path is appended to `moved` before it goes."""
    for path in sorted(source.iterdir()):
        belongs_to_model = any(path.match(pattern) for pattern in (*WEIGHT_FILES, *SLEB_FILES, *_TEMPORARY_FILES))
        if not belongs_to_model and not os.path.lexists(target / path.name):
            moved.append(path)
            path.rename(target / path.name)


def _finish_update(directory: Path) -> None:
    for file in sorted((directory / _UPDATE).iterdir()):
        file.replace(directory / file.name)
    _sync(directory)
    (directory / _UPDATE).rmdir()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
