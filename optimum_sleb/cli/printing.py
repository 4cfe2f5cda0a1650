"""What every command prints: results to stdout, log and progress to stderr, and how much of these."""

import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..runtime.logs import LEVELS, log_of_program, set_verbosity


def add_printing_arguments(parser: ArgumentParser) -> Any:
    """Add `--json`, `--log-level` and `--quiet`, and return their group."""
    group = parser.add_argument_group("what is told")
    group.add_argument("--json", action="store_true", help="Print the result as JSON, for machines.")
    how_much = group.add_mutually_exclusive_group()
    how_much.add_argument(
        "--log-level",
        choices=LEVELS,
        help="What is logged to stderr (default: OPTIMUM_SLEB_VERBOSITY, else info: a line for each step).",
    )
    how_much.add_argument("--quiet", action="store_true", help="Only errors and the result: no log, bars, warnings.")
    return group


@contextmanager
def printing(args: Namespace) -> Iterator[None]:
    """Log as the arguments say."""
    with warnings.catch_warnings(), log_of_program(args.log_level):
        if not args.quiet:
            yield
            return
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        silence()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)


def silence() -> None:
    """Hide warnings, progress bars and logs, ours and those of transformers."""
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    warnings.simplefilter("ignore")
    disable_progress_bar()
    set_verbosity_error()
    set_verbosity("error")
