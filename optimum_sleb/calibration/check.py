"""A look at the calibration data before a model is loaded: a slip costs seconds, not a download."""

from typing import Any

from ..config import SLEBConfig
from .kinds import choose_column
from .mixture import parts_of, weights_of, windows_per_part
from .places import Files, Published, find
from .readers import rows_of, text_of
from .reading import Reading
from .texts import iter_column


def check_data(config: SLEBConfig) -> None:
    """Refuse a recipe whose data are not there, cannot be read or have no column to use.
    Of each part of a mixture one row is read; a published data set is taken as it is. This needs no tokenizer.
    """
    parts = parts_of(config.dataset)
    places = [find(part.name) for part in parts]
    reading = Reading.of(config)
    reading.check(places)
    windows_per_part(config.max_windows, len(parts), weights_of(parts))
    for place in places:
        if isinstance(place, Published):
            continue
        if isinstance(place, Files) and not place.has_rows:
            next(text_of(place, reading), None)
        else:
            _check_row(next(rows_of(place, reading), None), place.name, config)


def _check_row(row: Any, name: str, config: SLEBConfig) -> None:
    if choose_column(row, name, config.text_column).kind == "text":
        next(iter_column([row], config.text_column, name))
