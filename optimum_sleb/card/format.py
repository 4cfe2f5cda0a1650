"""Formatting of names and numbers for the card."""

import math
import re
from pathlib import Path

from ..calibration.mixture import parts_of
from ..calibration.places import is_hub_name, is_pattern

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$#])")


def one_line(text: str) -> str:
    """Return a text on one line, with single spaces and without control characters.

    >>> one_line("two\\n lines\\x00")
    'two lines'
    """
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def escape_markdown(text: str) -> str:
    """Return a text on one line, with the special characters of Markdown and HTML escaped; safe in a table too.

    >>> print(escape_markdown("a|b <script>"))
    a\\|b \\<script\\>
    """
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def public_dataset_name(source: str) -> str:
    """Return the name of a data set without the folder of a local file, which must not appear in a public card.

    >>> public_dataset_name("/home/me/texts/novel.txt"), public_dataset_name("c4")
    ('novel.txt', 'c4')
    """
    return "+".join(part.renamed(_public_name(part.name)) for part in parts_of(source))


def _public_name(name: str) -> str:
    if is_hub_name(name):
        return name
    *folders, last = name.split("/")
    if not last and folders:
        return f"{folders[-1]}/"
    patterns = [number for number, folder in enumerate(folders) if is_pattern(folder)]
    return "/".join([*folders[patterns[0] :], last]) if patterns else Path(name).name


def is_finite_number(value: float | None) -> bool:
    """Return whether a value was measured and is a finite number.

    >>> is_finite_number(None), is_finite_number(float("inf")), is_finite_number(2.5)
    (False, False, True)
    """
    return value is not None and math.isfinite(value)


def format_number(value: float | None) -> str:
    """Return a number with two decimals, or four where it is below 1; empty where it is `None` or not finite.

    >>> format_number(1234.5678), format_number(0.68123), format_number(None)
    ('1,234.57', '0.6812', '')
    """
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:z.4f}"  # z: no minus before 0.0000


def format_with_stderr(value: float | None, stderr: float | None) -> str:
    """Return a number as `format_number` does, and its standard error with as many decimals.

    >>> format_with_stderr(0.68123, 0.0123), format_with_stderr(33.7, None)
    ('0.6812 ± 0.0123', '33.70')
    """
    text = format_number(value)
    if not text or stderr is None:
        return text
    return f"{text} ± {stderr:.{len(text.partition('.')[2])}f}"
