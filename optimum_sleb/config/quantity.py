"""Numbers of parameters and of bytes as people write them: "6B", "113M", "1.5e9", "16GB", "16GiB"."""

import re
from fractions import Fraction

from ..errors import ConfigError
from ..runtime.json import shown

MOST_COUNTED = 2**63 - 1
# Few enough digits that no text is slow to read.
_QUANTITY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?(?:e[+-]?[0-9]{1,2})?)\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNITS = {
    "max_parameters": {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12},
    "max_memory": {"": 1}
    | {f"{letter}b": 1000**power for letter, power in _POWERS.items()}
    | {f"{letter}ib": 1024**power for letter, power in _POWERS.items() if letter},
}
_EXAMPLES = {
    "max_parameters": "6_000_000_000, '6B', '113M' or '1.5e9'",
    "max_memory": "16_000_000_000, '16GB' or '16GiB'",
}


def quantity_of(value: int | str, name: str) -> int:
    """Return a whole number of parameters or bytes; a share of one is left out. `name` is the field of the recipe.

    >>> quantity_of("1.5e9", "max_parameters"), quantity_of("2 KiB", "max_memory")
    (1500000000, 2048)
    """
    number = value
    if isinstance(value, str):
        found = _QUANTITY.fullmatch(value.strip())
        unit = _UNITS[name].get(found[2].lower()) if found else None
        number = int(Fraction(found[1]) * unit) if found and unit else 0
    if type(number) is not int or not 1 <= number <= MOST_COUNTED:
        raise ConfigError(f"{name} must be a number such as {_EXAMPLES[name]}; got {shown(value)}.")
    return number


def canonical_quantity(value: int | str | None) -> int | str | None:
    """Return what a recipe keeps of a number: what was asked for, but bare digits as the number that they are.

    >>> canonical_quantity("6B"), canonical_quantity("6000")
    ('6B', 6000)
    """
    if isinstance(value, str):
        value = value.strip()
        return int(value) if re.fullmatch("[0-9]{1,18}", value, re.ASCII) else value
    return value
