"""One model at a time in a process: threads wait for each other."""

import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

from .logs import get_logger
from .undo import undoing

logger = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class _Turn(NamedTuple):
    thread: int
    what: str


# Building a model changes what the whole process shares: PyTorch's default dtype and device, methods of `nn.Module`,
# the functions of `torch.nn.init`. A second thread would build, load or compute with them too.
# The turn is an entry of a dict and no lock, because an interrupt at the end of a `with` can leave a lock taken.
_turns: dict[str, _Turn] = {}


def one_at_a_time(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function wait until no other thread is in one of these functions, and log what it waits for."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        name = threading.current_thread().name
        mine = _Turn(threading.get_ident(), f"{function.__qualname__} in thread {name!r}")
        holder = _turns.get("now")
        if holder is not None and holder.thread == mine.thread:
            return function(*args, **kwargs)  # it has its turn already

        def leave() -> None:
            if _turns.get("now") is mine:
                del _turns["now"]

        with undoing(leave):
            _wait_for(mine)
            return function(*args, **kwargs)

    return call


def _wait_for(mine: _Turn) -> None:
    is_told = False
    while (holder := _turns.setdefault("now", mine)) is not mine:
        if not is_told:
            logger.warning(
                f"{mine.what} waits until {holder.what} is done: a process works on one model at a time. Use several "
                "processes to work on several."
            )
            is_told = True
        time.sleep(0.01)
