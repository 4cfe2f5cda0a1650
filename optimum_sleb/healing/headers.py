"""The file in a folder that says what was computed there, and from what."""

import json
from pathlib import Path
from typing import Any

from ..errors import JournalError
from ..runtime.files import replace_file
from ..runtime.json import read_json


def open_header(file: Path, header: dict[str, Any]) -> dict[str, Any] | None:
    """Write the header of a folder, which is made if missing, and return `None`; if there is one, return that, which
    has all that `header` has, with any values."""
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, json.dumps(header))
        except OSError as error:
            raise JournalError(f"{file.parent} cannot be written ({error}); name another folder.") from error
        return None
    try:
        found = read_json(file)
        if not isinstance(found, dict) or (missing := sorted(header.keys() - found.keys())):
            what = f"it lacks {missing[0]}" if isinstance(found, dict) else "it is no JSON object"
            raise ValueError(what)
    except (OSError, ValueError) as error:
        raise JournalError(f"{file} is damaged ({error}); remove the folder to start anew.") from error
    return found
