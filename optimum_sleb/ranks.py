"""Several processes that search together: each measures a share of the windows, and all know all losses."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import RankError

T = TypeVar("T")


class Ranks:
    """The processes of `torch.distributed`, or this one alone.

    Whatever one of them meets, all of them meet: an error of one is raised in all, so that none waits for ever.

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

    def _all(self, value: T) -> list[T]:
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


class _AllOrNone:
    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            return  # an interrupt: whoever sends one sends it to all
        memory = kind is not None and issubclass(kind, torch.OutOfMemoryError)
        told = self._ranks._all(None if error is None else (memory, f"{type(error).__name__}: {error}"))
        if error is not None:
            return
        failed = {number: what for number, what in enumerate(told) if what is not None}
        if not failed:
            return
        if all(memory for memory, _ in failed.values()):
            raise torch.OutOfMemoryError("memory ran out in another process")
        number, (_, message) = next((number, what) for number, what in failed.items() if not what[0])
        raise RankError(f"Process {number} of {self._ranks.size} failed: {message}")
