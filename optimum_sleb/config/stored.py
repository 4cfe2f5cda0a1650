"""The file of a recipe."""

from pathlib import Path
from typing import Any

from ..errors import ReportError
from ..runtime.json import read_json


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the object in the file of a recipe, its values unchecked."""
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} is not valid JSON ({error}); write the recipe again.") from error
    if not isinstance(values, dict):
        raise ReportError(f"{path} must hold a JSON object, got a {type(values).__name__}; write the recipe again.")
    return values
