"""What a command does with an error that nothing below it expected: one line, and a file for a bug report."""

import os
import platform
import shlex
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from ..runtime.secrets import without_secrets

# EX_SOFTWARE of sysexits.h.
EXIT_CODE = 70
_PACKAGES = (
    *(
        "optimum-sleb",
        "optimum",
        "torch",
        "transformers",
        "accelerate",
        "datasets",
        "huggingface-hub",
        "numpy",
        "peft",
    ),
    *("safetensors", "tokenizers", "trl"),
)
_MOST_CHARACTERS = 600


def one_line(text: str) -> str:
    """Return a text on one line, as nothing that steers a terminal; of a very long one, the middle is left out.

    >>> print(one_line("two\\n lines\\x1b[2J"))
    two lines\\x1b[2J
    """
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(text.split()))
    # The beginning says what is wrong, the end what to do.
    return line if len(line) <= 3 * _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}...{line[-_MOST_CHARACTERS:]}"


def line_of(error: Exception) -> str:
    """Return what to print of an unexpected error; its traceback goes to a file whose path the line names."""
    message = one_line(without_secrets(traceback.format_exception_only(error)[-1]))
    what = message if len(message) <= _MOST_CHARACTERS else f"{message[:_MOST_CHARACTERS]}..."
    if _ran_out_of_memory(error):
        return f"memory ran out ({what}); take a device with more, a smaller model or batch, or --dtype bfloat16."
    try:
        file = _write(error)
    except Exception as failure:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}, line {place.lineno}; its traceback cannot be written: {one_line(str(failure))}"
        return f"internal error: {what} ({where}); report this line as a bug of optimum-sleb."
    return f"internal error: {what}; report it as a bug of optimum-sleb, with the traceback in {file}"


def _write(error: Exception) -> str:
    """Write a new file that only this user can read, and return its path; each process has its own."""
    lines = [
        f"command: {shlex.join(sys.argv)}",
        f"process: {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}",
        f"python: {platform.python_version()} on {platform.platform()}",
        *(f"{name}: {_version(name)}" for name in _PACKAGES),
        "",
        "".join(traceback.format_exception(error)),
    ]
    text = without_secrets("\n".join(lines))
    number, path = tempfile.mkstemp(prefix="optimum-sleb-bug-", suffix=".txt")
    with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _ran_out_of_memory(error: Exception) -> bool:
    with suppress(Exception):  # it needs torch, which may be what could not be imported
        from ..runtime.memory import ran_out_of_memory

        return ran_out_of_memory(error)
    return isinstance(error, MemoryError)
