"""Mixtures of calibration data: `"wikitext2+c4"`, files and other names joined by `+`, each with a weight or none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..errors import CalibrationError
from .places import exists
from .texts import NAMED_DATASETS

_JOINED_BY = "+"
_MOST_PLUSES = 16  # in the name of one file
_WEIGHT = re.compile(r"(.+):([0-9]{1,9}(?:\.[0-9]{1,9})?)", flags=re.DOTALL)


@dataclass(frozen=True)
class Part:
    """One part of a mixture; the weight is as it was written."""

    name: str
    weight: str | None = None

    def renamed(self, name: str) -> str:
        """Return another name with this weight.

        >>> Part("folder/chat.jsonl", "0.5").renamed("chat.jsonl")
        'chat.jsonl:0.5'
        """
        return name if self.weight is None else f"{name}:{self.weight}"


def parts_of(dataset: str) -> list[Part]:
    """Return the parts of a recipe's `dataset`. The path of a file that exists may hold `+` and `:`.

    >>> parts_of("wikitext2:0.75+c4:0.25")
    [Part(name='wikitext2', weight='0.75'), Part(name='c4', weight='0.25')]
    """
    if exists(dataset):
        return [Part(dataset)]
    words = dataset.split(_JOINED_BY)
    parts: list[Part] = []
    while words:
        # The longest name that exists, else what stands before the next `+`.
        for count in range(min(len(words), _MOST_PLUSES + 1), 0, -1):
            part = _part(_JOINED_BY.join(words[:count]))
            if count == 1 or exists(part.name):
                break
        parts.append(part)
        words = words[count:]
    return parts


def split_mixture(dataset: str) -> list[str]:
    """Return the names of the data sets and files that a recipe's `dataset` joins by `+`.

    >>> split_mixture("wikitext2+c4"), split_mixture("c4")
    (['wikitext2', 'c4'], ['c4'])
    """
    return [part.name for part in parts_of(dataset)]


def weights_of(parts: Sequence[Part]) -> list[Fraction] | None:
    """Return the weights of the parts, in any unit, or `None` where they are equal because none is given."""
    given = [Fraction(part.weight) for part in parts if part.weight is not None]
    if not given:
        return None
    if len(given) < len(parts) or min(given) == 0:
        listed = ", ".join(repr(part.renamed(part.name)) for part in parts)
        raise CalibrationError(f"Give every part of a mixture a weight above 0, or none of them; got {listed}.")
    return given


def windows_per_part(
    max_windows: int | None, num_parts: int, weights: Sequence[Fraction] | None = None
) -> list[int | None]:
    """Return the most windows that each part of a mixture gives (`None`: no limit), by the largest remainders.

    >>> windows_per_part(128, 2), windows_per_part(8, 3), windows_per_part(10, 2, [Fraction(3), Fraction(1)])
    ([64, 64], [3, 3, 2], [8, 2])
    """
    if max_windows is None:
        if weights is not None and num_parts > 1:
            raise CalibrationError(
                "The weights of a mixture share out max_windows windows; give their number (max_windows), or leave "
                "the weights out."
            )
        return [None] * num_parts
    if max_windows < num_parts:
        raise CalibrationError(
            f"max_windows={max_windows} is too few for a mixture of {num_parts} texts; give each of them at least one "
            "window."
        )
    weights = weights or [Fraction(1)] * num_parts
    exact = [max_windows * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    # A stable sort: of equal remainders the first ones win.
    by_remainder = sorted(range(num_parts), key=lambda part: shares[part] - exact[part])
    for part in by_remainder[: max_windows - sum(shares)]:
        shares[part] += 1
    if 0 in shares:
        raise CalibrationError(
            f"Of max_windows={max_windows}, part {shares.index(0) + 1} of the mixture gets no window; raise its "
            "weight or max_windows."
        )
    return [*shares]


def _part(text: str) -> Part:
    weighted = None if text in NAMED_DATASETS or exists(text) else _WEIGHT.fullmatch(text)
    return Part(weighted[1], weighted[2]) if weighted else Part(text)
