"""The output folder: written completely or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from ..errors import OutputFolderError
from ..report.folder import SECONDS_TO_WAIT, lock_folder, new_sibling, real_folder, swap, weights_in

T = TypeVar("T")


def check_output_folder(folder: str | Path, overwrite: bool, seconds: float = SECONDS_TO_WAIT) -> None:
    """Refuse a folder that cannot take a model, before the long work starts: a sibling is made as a save makes it."""
    directory = real_folder(folder)
    if not directory.name or directory == Path(os.path.realpath(".")) or os.path.ismount(directory):
        raise OutputFolderError(
            f"{directory} (from {str(folder)!r}) cannot be replaced by a saved model, as it is a root, a mount or the "
            "folder that this process works in; name a folder in it."
        )
    with lock_folder(directory, seconds):
        if os.path.lexists(directory) and not directory.is_dir():  # a link in a loop as well
            raise OutputFolderError(f"{directory} is a file; name a folder.")
        weights = weights_in(directory)
        if weights and not overwrite:
            raise OutputFolderError(
                f"{directory} already holds a model ({weights[0]}); choose another folder, or allow it to be replaced "
                "(overwrite=True, --overwrite)."
            )
        _make_sibling(directory).rmdir()


def write_folder(folder: str | Path, fill: Callable[[Path], T], overwrite: bool) -> T:
    """Fill a temporary sibling, then swap, so that a failure leaves the old folder or the new one, never a mix.

    Files of the old folder that are not part of a model, such as logs, are moved to the new one. Return the result of
    `fill`.
    """
    with lock_folder(folder) as directory:
        check_output_folder(folder, overwrite)
        fresh = _make_sibling(directory)
        try:
            filled = fill(fresh)
            swap(fresh, directory)
            return filled
        except Exception as error:
            if isinstance(error, OutputFolderError) or not _is_disk_error(error):
                raise
            half_done = fresh.with_suffix(".due").exists()
            state = "the next command that uses it finishes the save" if half_done else "the folder is as it was"
            raise OutputFolderError(f"{directory} cannot be written ({error}); {state}.") from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _make_sibling(directory: Path) -> Path:
    try:
        if directory.is_dir() and not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError("it is not yours to write")
        return new_sibling(directory)
    except OSError as error:
        raise OutputFolderError(
            f"{directory} cannot be written ({error.strerror or error}); choose another folder."
        ) from error


def _is_disk_error(error: Exception) -> bool:
    # On a full disk, safetensors raises an error of its own, and tokenizers a bare Exception.
    return isinstance(error, OSError | SafetensorError) or type(error) is Exception
