"""Running over token windows in batches that fit the memory."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .blocks.forward import losses_of, measuring
from .calibration.windows import TokenWindows, WindowBatch
from .errors import OutOfMemoryError


def run_in_batches(batches: Iterable[WindowBatch], run: Callable[[WindowBatch], None]) -> int | None:
    """Run a function on every batch of windows, in halves where memory runs out.

    A batch that failed is run again, in two halves, so the function must overwrite what it wrote before.

    Args:
        batches: The batches.
        run: The function.

    Returns:
        The batch size that fitted in the end, if memory ran out.

    Raises:
        OutOfMemoryError: If not even one window at a time fits.

    Example:
        >>> windows = TokenWindows.from_stream(torch.arange(12), length=4)
        >>> run_in_batches(windows.batches(2), lambda batch: print(batch.place, tuple(batch.ids.shape)))
        slice(0, 2, None) (2, 4)
        slice(2, 3, None) (1, 4)
    """
    pending = list(batches)[::-1]
    size: int | None = None
    while pending:
        batch = pending.pop()
        if _fits(run, batch):
            continue
        # Outside of the handler, whose traceback would hold on to the tensors of the failed attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = len(batch) // 2
        pending = [part for whole in [*pending, batch] for part in whole.split(size)[::-1]]
    return size


def model_losses(
    model: PreTrainedModel,
    windows: TokenWindows,
    batch_size: int,
    on_progress: Callable[[int], object] = lambda windows: None,
) -> Tensor:
    """The losses of a model as it is.

    Args:
        model: The model.
        windows: The windows.
        batch_size: Windows in one forward pass, at most.
        on_progress: Called with the number of windows that were just measured.

    Returns:
        The loss of each window, of shape (windows,), on the CPU.

    Raises:
        OutOfMemoryError: If not even one window at a time fits.

    Example:
        ```python
        before = model_losses(model, windows, batch_size=1).sum()
        ```
    """
    losses = torch.empty(len(windows))

    def measure(batch: WindowBatch) -> None:
        losses[batch.place] = losses_of(model, batch.ids, batch.targets).cpu()
        on_progress(len(batch))

    with measuring(model):
        run_in_batches(windows.batches(batch_size), measure)
    return losses


def _fits(run: Callable[[WindowBatch], None], batch: WindowBatch) -> bool:
    try:
        run(batch)
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise OutOfMemoryError(
                f"Memory ran out on a single window of {batch.ids.shape[1]} tokens; choose a smaller window_length, "
                "load the model in half precision, leave its blocks in host memory (offload='cpu'), or use a larger "
                "device."
            ) from error
        return False
    return True
