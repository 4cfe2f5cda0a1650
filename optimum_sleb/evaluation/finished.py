"""What was measured is on the disk at once, so that a command that was interrupted goes on."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import OutputFolderError
from ..plain import parse
from ..strict_json import read_json

T = TypeVar("T")


class Finished:
    """Keeps finished measurements in a folder, one file each, or nowhere.

    Args:
        folder: The folder; it is made if it does not exist. `None` keeps nothing.

    Example:
        ```python
        finished = Finished("progress")
        scores = finished.get_or_measure("piqa", {"limit": 100}, tuple[Score, ...], measure)
        ```
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._folder = None if folder is None else Path(folder)

    def get_or_measure(self, name: str, conditions: dict[str, Any], kind: type[T], measure: Callable[[], T]) -> T:
        """What was measured under the same conditions before, or else measure it now and keep it.

        Args:
            name: A short name, which the file begins with.
            conditions: All that decides the result, as plain values.
            kind: Type hint of the result: dataclasses and plain values, which JSON can hold.
            measure: Measures it.

        Returns:
            The result. A file that is damaged, or of another version of this package, counts as not there.

        Raises:
            OutputFolderError: If the folder cannot be written.

        Example:
            ```python
            finished.get_or_measure("wikitext2", conditions, tuple[Score, ...], measure)
            ```
        """
        if self._folder is None:
            return measure()
        key = json.dumps(conditions, sort_keys=True)
        file = self._folder / f"{_plain(name)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        try:
            kept = read_json(file)
            if kept["conditions"] == json.loads(key):
                return parse(kind, kept["result"], name)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not measured yet
        result = measure()
        self._write(file, {"conditions": conditions, "result": result})
        return result

    def _write(self, file: Path, content: dict[str, Any]) -> None:
        fresh = file.with_suffix(".new")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("w", encoding="utf-8") as opened:
                json.dump(content, opened, default=vars)
                opened.flush()
                os.fsync(opened.fileno())
            fresh.replace(file)
        except OSError as error:
            raise OutputFolderError(f"{file} cannot be written ({error}); choose another folder.") from error


def contents_of(files: Iterable[Path]) -> list[str]:
    """What files hold, in a form that is short and differs where they do.

    Args:
        files: The files.

    Returns:
        SHA-256 of each.

    Example:
        >>> contents_of([])
        []
    """
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return digests


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(name).name)
