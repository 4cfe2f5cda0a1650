"""Running over token windows in batches that fit the memory."""

from collections.abc import Callable, Iterable
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.forward import evaluating, losses_of
from ..errors import OutOfMemoryError
from ..runtime.memory import ran_out_of_memory
from .windows import TokenWindows, WindowBatch


def run_in_batches(
    batches: Iterable[WindowBatch], run: Callable[[WindowBatch], None], block_by_block: bool = False
) -> int | None:
    """Run a function on every batch, or on halves where memory runs out; return the reduced batch size, else None.

    The function runs again after a failure, so it must overwrite earlier results. Raise OutOfMemoryError if a single
    window does not fit.

    >>> windows = TokenWindows.from_stream(torch.arange(12), length=4)
    >>> run_in_batches(windows.batches(2), lambda batch: print(batch.span, tuple(batch.ids.shape)))
    slice(0, 2, None) (2, 4)
    slice(2, 3, None) (1, 4)
    """
    pending = list(batches)[::-1]
    size: int | None = None
    while pending:
        batch = pending.pop()
        message = f"Memory ran out on a single window of {batch.ids.shape[1]} tokens; {_remedy(block_by_block)}."
        with MemoryAttempt(len(batch), message) as attempt:
            run(batch)
        if attempt.failed:
            free_cached_memory()
            size = len(batch) // 2
            pending = [part for whole in [*pending, batch] for part in whole.split(size)[::-1]]
    return size


class MemoryAttempt:
    """A context that notes when memory runs out in it, so that the caller tries again with fewer windows.
    With a single window there are no fewer: then it raises OutOfMemoryError with `message`."""

    def __init__(self, num_windows: int, message: str) -> None:
        self._num_windows = num_windows
        self._message = message
        self.failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, Exception) or not ran_out_of_memory(error):
            return False
        if self._num_windows == 1:
            raise OutOfMemoryError(self._message) from error
        self.failed = True
        return True


def free_cached_memory() -> None:
    """Return what a failed attempt took to the device; call it outside the attempt, whose error holds its tensors."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def model_losses(
    model: PreTrainedModel,
    windows: TokenWindows,
    batch_size: int,
    on_progress: Callable[[int], object] = lambda windows: None,
) -> Tensor:
    """Return the loss of each window, of shape (windows,), on the CPU; `on_progress` gets the number just measured."""
    losses = torch.empty(len(windows))

    def measure(batch: WindowBatch) -> None:
        losses[batch.span] = losses_of(model, batch.ids, batch.targets).cpu()
        on_progress(len(batch))

    with evaluating(model):
        run_in_batches(windows.batches(batch_size), measure)
    return losses


def _remedy(block_by_block: bool) -> str:
    if block_by_block:
        return (
            "its blocks are brought to the device one at a time already, so choose a smaller window_length, try fewer "
            "candidates (a larger early_barrier or latter_barrier), or use a larger device"
        )
    return (
        "choose a smaller window_length, load the model in half precision, leave its blocks in host memory "
        "(offload='cpu'), or use a larger device"
    )
