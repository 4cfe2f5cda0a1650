"""Several processes that search together: each measures a share of the windows, and all know all losses."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, Self, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from .errors import RankError, SLEBError
from .memory import ran_out_of_memory

T = TypeVar("T")

# One process may save a large model while the others wait. One that is gone is noticed by its launcher.
_PATIENCE = timedelta(days=2)


class _Failure(NamedTuple):
    """An error, as the other processes hear of it."""

    is_memory: bool
    message: str


class Ranks:
    """The processes of `torch.distributed`, or this one alone.

    Whatever one of them meets, all of them meet: an error of one is raised in all, so that none waits for ever. Every
    exchange carries either a value or an error, so an error reaches the others wherever they wait for this process.

    Args:
        together: Work together with the other processes; all of them must make the same calls.

    Raises:
        RankError: If `together` is set, but `torch.distributed` has not been initialised.

    Example:
        >>> Ranks(together=False).size
        1
    """

    def __init__(self, together: bool) -> None:
        if together and not (dist.is_available() and dist.is_initialized()):
            raise RankError(
                "torch.distributed has not been initialised, so there are no processes to search together with; start "
                "with torchrun or accelerate launch, and make an accelerate.PartialState() first."
            )
        self.size = dist.get_world_size() if together else 1
        self.number = dist.get_rank() if together else 0

    @classmethod
    def of_launcher(cls, cpu: bool = False) -> Self:
        """The processes that `torchrun` or `accelerate launch` has started; this one alone where there are none.

        Every process takes the GPU of its number on its machine as the current one.

        Args:
            cpu: Compute on CPUs, also where there are GPUs.

        Returns:
            The processes.

        Example:
            >>> Ranks.of_launcher().size
            1
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls(together=False)
        if not dist.is_initialized():
            PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=_PATIENCE)
        return cls(together=True)

    def leave(self) -> None:
        """End working together, when all is done.

        Example:
            >>> Ranks(together=False).leave()
        """
        if self.size > 1:
            dist.destroy_process_group()

    def own_device(self, device: str) -> str:
        """The device of this process, where all were asked to use a kind of device.

        Args:
            device: `"cuda"` or `"cpu"`.

        Returns:
            The GPU of this process, or `"cpu"`.

        Raises:
            RankError: If several processes were asked to use one GPU, or each of them all.

        Example:
            >>> Ranks(together=False).own_device("cpu")
            'cpu'
        """
        if self.size > 1 and (device.startswith("cuda:") or device == "auto"):
            raise RankError(
                f"{self.size} processes cannot share device {device!r}; use 'cuda', of which each takes its own."
            )
        own = device == "cuda" and torch.cuda.is_available()
        return f"cuda:{torch.cuda.current_device()}" if own else device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.number == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """Something that only the first process makes, known to all.

        Args:
            make: Makes it.

        Returns:
            What the first process made.

        Raises:
            RankError: If making it failed, in the processes that did not make it; the first raises the error itself.

        Example:
            >>> Ranks(together=False).from_first(lambda: 3)
            3
        """
        made: list[Any] = [None]
        with self.all_or_none():
            if self.is_first:
                made[0] = make()
        if self.size > 1:
            with _noticing_who_is_gone():
                dist.broadcast_object_list(made, src=0)
        return made[0]

    def smallest(self, value: int) -> int:
        """The smallest of the values that the processes have.

        Args:
            value: This process's value.

        Returns:
            The smallest.

        Example:
            >>> Ranks(together=False).smallest(4)
            4
        """
        return min(self._all(value))

    def largest(self, value: int) -> int:
        """The largest of the values that the processes have.

        Args:
            value: This process's value.

        Returns:
            The largest.

        Example:
            >>> Ranks(together=False).largest(4)
            4
        """
        return max(self._all(value))

    def sum(self, share: Tensor) -> Tensor:
        """The sum over all processes of tensors of one shape.

        Args:
            share: This process's tensor; it becomes the sum.

        Returns:
            The sum.

        Example:
            >>> Ranks(together=False).sum(torch.ones(2))
            tensor([1., 1.])
        """
        if self.size > 1:
            with _noticing_who_is_gone():
                dist.all_reduce(share)
        return share

    def all_or_none(self) -> "_AllOrNone":
        """A context that fails in all processes if it fails in one.

        Returns:
            The context.

        Example:
            >>> with Ranks(together=False).all_or_none():
            ...     pass
        """
        return _AllOrNone(self)

    def _all(self, value: T, failure: _Failure | None = None) -> list[T]:
        """The values of all processes; or an error, where others failed in a way in which this one did not."""
        if self.size == 1:
            return [value]
        told: list[Any] = [None] * self.size
        with _noticing_who_is_gone():
            dist.all_gather_object(told, (value, failure))
        failures = {number: their for number, (_, their) in enumerate(told) if their is not None}
        worse = {number: their for number, their in failures.items() if not their.is_memory}
        if worse and (failure is None or failure.is_memory):
            number, their = next(iter(worse.items()))
            raise _known_to_all(RankError(f"Process {number} of {self.size} failed: {their.message}"))
        if failures and failure is None:
            raise _known_to_all(torch.OutOfMemoryError("memory ran out in another process"))
        return [value for value, _ in told]


class _AllOrNone:
    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        if error is None:
            self._ranks._all(None)
        elif isinstance(error, Exception) and not getattr(error, _KNOWN, False):
            # Not an interrupt: whoever sends one sends it to all.
            message = str(error) if isinstance(error, SLEBError) else f"{type(error).__name__}: {error}"
            self._ranks._all(None, _Failure(ran_out_of_memory(error), message))
            _known_to_all(error)


_KNOWN = "_sleb_known_to_all_processes"

E = TypeVar("E", bound=Exception)


def _known_to_all(error: E) -> E:
    """Mark an error that the others know of, so that it is not told again on its way up."""
    setattr(error, _KNOWN, True)
    return error


@contextmanager
def _noticing_who_is_gone() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        line = str(error).strip().partition("\n")[0]
        raise _known_to_all(
            RankError(f"Another process is gone, and this one cannot go on without it ({line}).")
        ) from error
