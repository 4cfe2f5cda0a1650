"""The output folder: written completely or not at all."""

import shutil
import warnings
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from safetensors import SafetensorError

from ..errors import OutputFolderError
from .records import SLEB_FILES, WEIGHT_FILES

T = TypeVar("T")


def check_output_folder(directory: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot take a model, before the long work starts.

    If an earlier save was killed after it moved the folder aside, move the folder back, with the journal in it.
    """
    aside = _siblings(directory, "old")
    if len(aside) == 1 and not directory.exists():
        aside[0].rename(directory)
    if directory.exists() and not directory.is_dir():
        raise OutputFolderError(f"{directory} is a file; name a folder.")
    weights = [path.name for pattern in WEIGHT_FILES for path in directory.glob(pattern)] if directory.is_dir() else []
    if weights and not overwrite:
        raise OutputFolderError(
            f"{directory} already holds a model ({weights[0]}); choose another folder, or allow it to be replaced "
            "(overwrite=True, --overwrite)."
        )


def write_folder(directory: Path, fill: Callable[[Path], T], overwrite: bool) -> T:
    """Fill a temporary sibling, then rename it, so that a failure leaves the old folder or the new one, never a mix.

    Files of the old folder that are not part of a model, such as logs, are moved to the new one. Return the result of
    `fill`.
    """
    check_output_folder(directory, overwrite)
    for left in _siblings(directory, "new"):
        warnings.warn(
            f"{left} was left by a save that was killed; delete it, unless another program is saving to {directory}.",
            stacklevel=2,
        )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = directory.with_name(f".{directory.name}.{uuid4().hex[:8]}.new")
        fresh.mkdir()
    except OSError as error:
        raise OutputFolderError(f"{directory} cannot be written ({error}); choose another folder.") from error
    try:
        filled = fill(fresh)
        _swap(fresh, directory)
        return filled
    except Exception as error:
        if isinstance(error, OutputFolderError) or not _is_disk_error(error):
            raise
        raise OutputFolderError(f"{directory} cannot be written ({error}); the folder is as it was.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _siblings(directory: Path, ending: str) -> list[Path]:
    """Return folders left by killed saves beside this one: the earlier folder (`old`) or an unfinished one (`new`)."""
    return sorted(directory.parent.glob(f".{escape(directory.name)}.{'[0-9a-f]' * 8}.{ending}"))


def _is_disk_error(error: Exception) -> bool:
    # On a full disk, safetensors raises an error of its own, and tokenizers a bare Exception.
    return isinstance(error, OSError | SafetensorError) or type(error) is Exception


def _swap(fresh: Path, directory: Path) -> None:
    if not directory.exists():
        fresh.rename(directory)
        return
    old = fresh.with_suffix(".old")
    directory.rename(old)
    try:
        fresh.rename(directory)
    except BaseException:  # a signal as well
        old.rename(directory)
        raise
    try:
        for path in old.iterdir():
            belongs_to_old_model = any(path.match(pattern) for pattern in (*WEIGHT_FILES, *SLEB_FILES))
            if not belongs_to_old_model and not (directory / path.name).exists():
                path.rename(directory / path.name)
        shutil.rmtree(old)
    except OSError as error:
        raise OutputFolderError(
            f"{directory} holds the new model, but files of the old folder are still in {old} ({error}); move those "
            "that you need, and delete it."
        ) from error
