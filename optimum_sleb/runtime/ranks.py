"""Processes that search together: each measures a share of the windows, and all get all losses."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, Self, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from ..errors import RankError, SLEBError
from .memory import ran_out_of_memory

T = TypeVar("T")

# Long, because the others wait while one process does what it alone does, such as to save a large model. The launcher
# notices a process that ended.
LONGEST_WAIT = timedelta(days=2)


class _Failure(NamedTuple):
    """An error as it is sent to the other processes."""

    is_memory: bool  # memory ran out
    message: str


class Ranks:
    """The processes of `torch.distributed`, or this one alone (`together=False`).
    With `together`, all of them must make the same calls. Each exchange carries a value or an error, and an error of
    one process is raised in all, so that none waits for ever.
    """

    def __init__(self, together: bool) -> None:
        if together and not (dist.is_available() and dist.is_initialized()):
            raise RankError(
                "torch.distributed has not been initialised, so there are no processes to search together with; start "
                "with torchrun or accelerate launch, and make an accelerate.PartialState() first."
            )
        self.size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if together else 0

    @classmethod
    def alone(cls) -> Self:
        """Return this process alone."""
        return cls(together=False)

    @classmethod
    def from_launcher(cls, cpu: bool = False) -> Self:
        """Return the processes that `torchrun` or `accelerate launch` started, or this one alone if there are none.
        In each process, the GPU with its number on its machine becomes the current one.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls.alone()
        if not dist.is_initialized():
            PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=LONGEST_WAIT)
        return cls(together=True)

    def close(self) -> None:
        """End the process group."""
        if self.size > 1:
            dist.destroy_process_group()

    def own_device(self, device: str) -> str:
        """Return this process's device: its own GPU for `"cuda"`, else `device`."""
        if self.size > 1 and (device.startswith("cuda:") or device == "auto"):
            raise RankError(
                f"{self.size} processes cannot share device {device!r}; use 'cuda', of which each takes its own."
            )
        own = device == "cuda" and torch.cuda.is_available()
        return f"cuda:{torch.cuda.current_device()}" if own else device

    @property
    def is_first(self) -> bool:
        """Return whether this process writes and prints."""
        return self.rank == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process only, and return its result in all.
        If it fails, the first process raises that error; the others raise `RankError`, or `OutOfMemoryError` as well.
        """
        made: list[Any] = [None]
        with self.fail_together():
            if self.is_first:
                made[0] = make()
        if self.size > 1:
            with _raising_rank_errors():
                dist.broadcast_object_list(made, src=0)
        return made[0]

    def smallest(self, value: int) -> int:
        """Return the smallest of the values of all processes."""
        return min(self._gather(value))

    def largest(self, value: int) -> int:
        """Return the largest of the values of all processes."""
        return max(self._gather(value))

    def sum(self, share: Tensor) -> Tensor:
        """Sum tensors of one shape over all processes, in place."""
        if self.size > 1:
            with _raising_rank_errors():
                dist.all_reduce(share)
        return share

    def fail_together(self) -> "_FailTogether":
        """Return a context that fails in all processes if it fails in one."""
        return _FailTogether(self)

    def _gather(self, value: T, failure: _Failure | None = None) -> list[T]:
        """Return the values of all processes; raise an error if others failed in a way in which this one did not."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        with _raising_rank_errors():
            dist.all_gather_object(gathered, (value, failure))
        failures = {rank: other for rank, (_, other) in enumerate(gathered) if other is not None}
        # Running out of memory is retried with smaller batches, so an error of another kind goes first.
        fatal = {rank: other for rank, other in failures.items() if not other.is_memory}
        if fatal and (failure is None or failure.is_memory):
            rank, other = next(iter(fatal.items()))
            raise _mark_as_shared(RankError(f"Process {rank} of {self.size} failed: {other.message}"))
        if failures and failure is None:
            raise _mark_as_shared(torch.OutOfMemoryError("memory ran out in another process"))
        return [value for value, _ in gathered]


class _FailTogether:
    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        if error is None:
            self._ranks._gather(None)
        elif isinstance(error, Exception) and not getattr(error, _SHARED, False):
            # A KeyboardInterrupt is not passed on, because every process receives its own.
            message = str(error) if isinstance(error, SLEBError) else f"{type(error).__name__}: {error}"
            self._ranks._gather(None, _Failure(ran_out_of_memory(error), message))
            _mark_as_shared(error)


_SHARED = "_sleb_shared_with_all_processes"

E = TypeVar("E", bound=Exception)


def _mark_as_shared(error: E) -> E:
    """Mark an error as known to the other processes, so that it is not sent to them again."""
    setattr(error, _SHARED, True)
    return error


@contextmanager
def _raising_rank_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        line = str(error).strip().partition("\n")[0]
        raise _mark_as_shared(
            RankError(f"Another process is gone, and this one cannot go on without it ({line}).")
        ) from error
