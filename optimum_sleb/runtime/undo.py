"""Changes that are undone at the end of a context, also if an interrupt comes while they are made or undone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def undoing(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` at the end of a context that makes a change, and again: an interrupt may cut the first call short.
    It must not mind how much of the change was made."""
    try:
        try:
            yield
        finally:
            undo()
    finally:
        undo()
