"""Names and numbers as a card writes them."""

import math
import re
from pathlib import Path

from ..calibration.mixture import parts_of
from ..calibration.texts import NAMED_DATASETS

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$#])")


def one_line(text: str) -> str:
    """A text on one line, without control characters.

    Args:
        text: Any text, such as the name of a file.

    Returns:
        The text; every run of white space is one blank.

    Example:
        >>> one_line("two\\n lines\\x00")
        'two lines'
    """
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def plain(text: str) -> str:
    """A text that stands in Markdown, also in a table, as it is.

    Args:
        text: Any text, such as the name of a file.

    Returns:
        The text on one line, with everything escaped that Markdown or HTML would take for its own.

    Example:
        >>> print(plain("a|b <script>"))
        a\\|b \\<script\\>
    """
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def dataset_name(source: str) -> str:
    """What a reader elsewhere may know of a data set: where a file lies on this machine is nobody's business.

    Args:
        source: The data set, file or kind of object, as a report names it.

    Returns:
        Its name.

    Example:
        >>> dataset_name("/home/me/texts/novel.txt"), dataset_name("c4")
        ('novel.txt', 'c4')
    """
    return "+".join(part if part in NAMED_DATASETS else Path(part).name for part in parts_of(source))


def is_finite(value: float | None) -> bool:
    """Whether there is a number to show.

    Args:
        value: A measured number, or `None` where nothing was measured.

    Returns:
        Whether it is a finite number.

    Example:
        >>> is_finite(None), is_finite(float("inf")), is_finite(2.5)
        (False, False, True)
    """
    return value is not None and math.isfinite(value)


def number(value: float | None) -> str:
    """A measured number for a table.

    Args:
        value: The number.

    Returns:
        Two digits behind the point, four where it is small; empty where nothing was measured.

    Example:
        >>> number(1234.5678), number(0.68123), number(None)
        ('1,234.57', '0.6812', '')
    """
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.4f}"


def with_error(value: float | None, stderr: float | None) -> str:
    """A measured number for a table, with its standard error where there is one.

    Args:
        value: The number.
        stderr: Its standard error.

    Returns:
        The number as `number` writes it, and its error to as many digits.

    Example:
        >>> with_error(0.68123, 0.0123), with_error(33.7, None)
        ('0.6812 ± 0.0123', '33.70')
    """
    text = number(value)
    if not text or stderr is None:
        return text
    return f"{text} ± {stderr:.{len(text.partition('.')[2])}f}"
