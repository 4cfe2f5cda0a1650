"""One model at a time in a process: threads wait for each other."""

import logging
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Building a model changes what the whole process shares: PyTorch's default dtype and device, methods of `nn.Module`,
# the functions of `torch.nn.init`. A second thread would build, load or compute with them too.
_lock = threading.RLock()
_turn: tuple[int, str] | None = None  # thread that has its turn, and what it does


def one_at_a_time(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function wait until no other thread is in one of these functions, and log what it waits for."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        global _turn
        thread, turn = threading.current_thread(), _turn
        if turn is not None and turn[0] != thread.ident:
            logger.warning(
                f"{function.__qualname__} in thread {thread.name!r} waits until {turn[1]} is done: a process works on "
                "one model at a time. Use several processes to work on several."
            )
        with _lock:
            before = _turn
            try:
                _turn = threading.get_ident(), f"{function.__qualname__} in thread {thread.name!r}"
                return function(*args, **kwargs)
            finally:
                _turn = before

    return call
