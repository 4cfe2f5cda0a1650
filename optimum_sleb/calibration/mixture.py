"""Mixtures of calibration texts: `"wikitext2+c4"`, or files joined by `+`."""

from pathlib import Path

from ..errors import CalibrationError
from .texts import NAMED_DATASETS

_JOINED_BY = "+"


def parts_of(dataset: str) -> list[str]:
    """The data sets and files that a recipe's `dataset` names.

    Args:
        dataset: A data set or file, or several joined by `+`. The path of a file may hold a `+` itself, if the file
            exists and stands alone.

    Returns:
        The parts, in order; one where it is no mixture.

    Example:
        >>> parts_of("wikitext2+c4"), parts_of("c4")
        (['wikitext2', 'c4'], ['c4'])
    """
    if dataset in NAMED_DATASETS or _is_file(dataset):
        return [dataset]
    return dataset.split(_JOINED_BY)


def shares_of(max_windows: int | None, num_parts: int) -> list[int | None]:
    """How many windows each part of a mixture gives at most.

    Args:
        max_windows: Windows of all parts together, at most; `None` is no limit.
        num_parts: Number of parts.

    Returns:
        For each part the most windows that it gives; they differ by one at most.

    Raises:
        CalibrationError: If there are fewer windows than parts.

    Example:
        >>> shares_of(128, 2), shares_of(8, 3)
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
        return Path(name).is_file()
    except OSError:  # too long for a path, say: several paths together can be
        return False
