"""The log of the package: the logger `optimum_sleb` of Python's logging, with a level from the environment."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LEVELS = ("debug", "info", "warning", "error")
_VARIABLE = "OPTIMUM_SLEB_VERBOSITY"
_LOGGER = logging.getLogger("optimum_sleb")


class _Handler(logging.Handler):
    """Writes to stderr, above a progress bar; leaves it to the program where that has handlers of its own."""

    is_program = False  # the command line is the program

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm.auto import tqdm

        if self.is_program or not logging.getLogger().handlers:
            tqdm.write(self.format(record), file=sys.stderr)


_HANDLER = _Handler()


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module. The first call gives the package's logger a handler, and the level of
    OPTIMUM_SLEB_VERBOSITY unless the program has set one."""
    if _HANDLER not in _LOGGER.handlers:
        _LOGGER.addHandler(_HANDLER)
        if _LOGGER.level == logging.NOTSET:
            _LOGGER.setLevel(_level_of_environment("warning").upper())
    return logging.getLogger(name)


def set_verbosity(level: str) -> None:
    """Choose what is logged, as `OPTIMUM_SLEB_VERBOSITY` does before Python starts.

    Log lines go to the logger `optimum_sleb` of Python's logging; where the program has no handlers, to stderr.

    Args:
        level: `"debug"`, `"info"` (a line for each step of a search), `"warning"` (as without a choice) or `"error"`.

    Raises:
        ValueError: If there is no such level.

    Example:
        >>> set_verbosity("warning")
    """
    if level not in LEVELS:
        raise ValueError(f"The verbosity must be one of {', '.join(LEVELS)}; got {level!r}.")
    get_logger(__name__)
    _LOGGER.setLevel(level.upper())


def hides_bars() -> bool | None:
    """Return what tqdm takes as `disable`: its own choice, but no bar where only errors are shown."""
    return None if _LOGGER.isEnabledFor(logging.WARNING) else True


@contextmanager
def log_of_program(level: str | None) -> Iterator[None]:
    """Write the log to stderr whatever handlers there are; `None` is the level of the environment, else "info"."""
    get_logger(__name__)
    before = _LOGGER.level
    _LOGGER.setLevel((level or _level_of_environment("info")).upper())
    _HANDLER.is_program = True
    try:
        yield
    finally:
        _HANDLER.is_program = False
        _LOGGER.setLevel(before)


def _level_of_environment(default: str) -> str:
    level = os.environ.get(_VARIABLE, "").lower() or default
    if level in LEVELS:
        return level
    _LOGGER.warning(f"{_VARIABLE} must be one of {', '.join(LEVELS)}, got {level!r}; it is taken as {default!r}.")
    return default
