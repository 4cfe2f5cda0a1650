"""Running over token windows in batches that fit the memory."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .blocks.forward import losses_of, measuring
from .calibration.windows import TokenWindows
from .errors import OutOfMemoryError


def run_in_batches(windows: TokenWindows, batch_size: int, run: Callable[[slice, Tensor], None]) -> int:
    """Run a function on every batch of windows, in halves where memory runs out.

    A batch that failed is run again, in two halves, so the function must overwrite what it wrote before.

    Args:
        windows: The windows.
        batch_size: Windows in a batch, at most.
        run: Takes the place of a batch among the windows, and its token ids of shape (batch, length).

    Returns:
        The batch size that fitted in the end.

    Raises:
        OutOfMemoryError: If not even one window at a time fits.

    Example:
        >>> windows = TokenWindows.from_stream(torch.arange(12), length=4)
        >>> run_in_batches(windows, 2, lambda place, ids: print(place, tuple(ids.shape)))
        slice(0, 2, None) (2, 4)
        slice(2, 3, None) (1, 4)
        2
    """
    pending = list(windows.batches(batch_size))[::-1]
    while pending:
        place, ids = pending.pop()
        if _fits(run, place, ids):
            continue
        # Outside of the handler, whose traceback would hold on to the tensors of the failed attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(ids) // 2
        middle = place.start + half
        pending += [(slice(middle, place.stop), ids[half:]), (slice(place.start, middle), ids[:half])]
        batch_size = min(batch_size, half)
        pending = [part for batch in pending for part in _split(*batch, batch_size)]
    return batch_size


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

    def measure(place: slice, ids: Tensor) -> None:
        losses[place] = losses_of(model, ids).cpu()
        on_progress(len(ids))

    with measuring(model):
        run_in_batches(windows, batch_size, measure)
    return losses


def _fits(run: Callable[[slice, Tensor], None], place: slice, ids: Tensor) -> bool:
    try:
        run(place, ids)
    except torch.OutOfMemoryError as error:
        if len(ids) == 1:
            raise OutOfMemoryError(
                f"Memory ran out on a single window of {ids.shape[1]} tokens; choose a smaller window_length, load "
                "the model in half precision, or use a larger device."
            ) from error
        return False
    return True


def _split(place: slice, ids: Tensor, size: int) -> list[tuple[slice, Tensor]]:
    """A batch in parts of at most so many windows, last part first."""
    starts = range(0, len(ids), size)
    return [
        (slice(place.start + start, min(place.start + start + size, place.stop)), ids[start : start + size])
        for start in reversed(starts)
    ]
