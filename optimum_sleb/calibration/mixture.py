"""Mixtures of calibration texts: `"wikitext2+c4"`, or several files joined by `+`."""

import os

from ..errors import CalibrationError
from .texts import NAMED_DATASETS

_JOINED_BY = "+"


def split_mixture(dataset: str) -> list[str]:
    """Return the data sets and files that a recipe's `dataset` joins by `+`; the path of a single file may hold a `+`.

    >>> split_mixture("wikitext2+c4"), split_mixture("c4")
    (['wikitext2', 'c4'], ['c4'])
    """
    if dataset in NAMED_DATASETS or _is_file(dataset):
        return [dataset]
    return dataset.split(_JOINED_BY)


def windows_per_part(max_windows: int | None, num_parts: int) -> list[int | None]:
    """Return the most windows that each part of a mixture gives (`None`: no limit); they differ by one at most.

    >>> windows_per_part(128, 2), windows_per_part(8, 3)
    ([64, 64], [3, 3, 2])
    """
    if max_windows is None:
        return [None] * num_parts
    if max_windows < num_parts:
        raise CalibrationError(
            f"max_windows={max_windows} is too few for a mixture of {num_parts} texts; give each of them at least one "
            "window."
        )
    whole, rest = divmod(max_windows, num_parts)
    return [whole + (number < rest) for number in range(num_parts)]


def _is_file(name: str) -> bool:
    try:
        return os.path.isfile(name)
    except OSError:  # several paths joined can be too long for one path
        return False
