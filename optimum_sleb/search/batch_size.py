"""How many windows go through the blocks at a time: enough to keep the device busy, no more than its memory holds."""

from collections.abc import Sequence

import torch

from ..blocks.runner import BlockRunner
from ..blocks.stack import probe_ids
from ..calibration.windows import TokenWindows
from ..memory import usable_memory
from .exact import ExactLosses
from .layerwise import LayerwiseLosses

# Elements of the hidden state from which on a device is busy: 4 windows of 2048 tokens of a model 4096 wide. More
# takes memory and gains nothing; and the caches of a CPU are small.
_CUDA_ELEMENTS = 2**25
_CPU_ELEMENTS = 2**20


def choose_batch_size(measure: ExactLosses, last_candidate: int, limit: int | None = None) -> int:
    """Choose the batch size of a search.

    Args:
        measure: The search's way of measuring. It is not used itself.
        last_candidate: The last of the blocks that are tried.
        limit: No more than this, for another reason.

    Returns:
        Windows in a batch.

    Raises:
        OutOfMemoryError: If not even one window fits.

    Example:
        ```python
        measure.batch_size = choose_batch_size(measure, last_candidate=28)  # 16
        ```
    """
    longest = max(measure.windows.windows, key=len)
    on_cuda = measure.model.device.type == "cuda"
    with BlockRunner(measure.model, measure.stack) as runner:
        width = runner.enter(probe_ids(measure.model)).hidden.shape[-1]
    most = (_CUDA_ELEMENTS if on_cuda else _CPU_ELEMENTS) // (len(longest) * width)
    num_windows = -(-len(measure.windows) // measure.ranks.size)  # of the process that has the most
    most = max(1, min(most, num_windows, limit or most))
    if on_cuda and most > 1:
        most = max(1, min(most, usable_memory(measure.model.device) // _memory_of(measure, last_candidate, longest)))
    return measure.ranks.smallest(_even(num_windows, most))


def fit_layerwise(measure: LayerwiseLosses, candidates: Sequence[int], limit: int | None = None) -> None:
    """Choose how many windows are carried up the stack together, and how many of them run at a time, in place.

    Args:
        measure: The search's way of measuring, whose blocks are brought to the device.
        candidates: The blocks that are tried, ascending.
        limit: No more windows than this, for another reason.

    Raises:
        OutOfMemoryError: If not even one window fits.

    Example:
        ```python
        fit_layerwise(measure, range(1, 39))
        ```
    """
    longest = max(measure.windows.windows, key=len)
    num_windows = -(-len(measure.windows) // measure.ranks.size)
    device = measure.model.device
    at_a_time = choose_batch_size(measure, candidates[-1])
    fits = limit or num_windows
    if device.type == "cuda":
        with BlockRunner(measure.model, measure.stack) as runner:
            hidden = runner.enter(longest[None]).hidden
        # A state for each candidate and one for the walk; beside them, what running a few windows takes, in which two
        # blocks are already: those that the trial brought.
        working = at_a_time * _memory_of(measure, candidates[-1], longest)
        room = (usable_memory(device) - working) // ((len(candidates) + 1) * hidden.nbytes)
        fits = max(1, min(fits, room))
    batch_size = measure.ranks.smallest(_even(num_windows, min(fits, num_windows)))
    measure.batch_size, measure.windows_at_a_time = batch_size, min(at_a_time, batch_size)


def _even(num_windows: int, most: int) -> int:
    """A batch size that leaves no smaller batch over, where there is one close to the most that fits."""
    return next((size for size in range(most, most // 2, -1) if num_windows % size == 0), most)


def _memory_of(measure: ExactLosses, last_candidate: int, window: torch.Tensor) -> int:
    """Bytes that one window takes at most, beyond the weights."""
    device = measure.model.device
    trial = type(measure)(measure.model, measure.stack, TokenWindows((window,)))
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    trial(range(len(measure.stack)), [last_candidate])  # its walk passes all blocks
    return max(1, torch.cuda.max_memory_allocated(device) - before)
