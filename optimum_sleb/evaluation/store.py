"""Store of finished measurements on disk, so that an interrupted command can continue."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import OutputFolderError
from ..runtime.files import replace_file
from ..runtime.json import parse, read_json

T = TypeVar("T")


class MeasurementStore:
    """Store of finished measurements, one JSON file each; `None` as folder stores nothing."""

    def __init__(self, folder: str | Path | None) -> None:
        self._folder = None if folder is None else Path(folder)

    def get_or_measure(self, name: str, conditions: dict[str, Any], kind: type[T], measure: Callable[[], T]) -> T:
        """Return the result stored under the same conditions, or measure it now and store it.

        `conditions` and the result (`kind` is its type hint) must fit JSON. A damaged file counts as missing.
        """
        if self._folder is None:
            return measure()
        key = json.dumps(conditions, sort_keys=True)
        file = self._folder / f"{_file_name(name)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        try:
            kept = read_json(file)
            if kept["conditions"] == json.loads(key):
                return parse(kind, kept["result"], name)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # missing, damaged or of another version: measure it
        result = measure()
        self._write(file, {"conditions": conditions, "result": result})
        return result

    def _write(self, file: Path, content: dict[str, Any]) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, json.dumps(content, default=vars))
        except OSError as error:
            raise OutputFolderError(f"{file} cannot be written ({error}); choose another folder.") from error


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(name).name[:50])
