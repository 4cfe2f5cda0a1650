"""How many windows go through the blocks at a time: enough to keep the device busy, no more than its memory holds."""

from collections.abc import Sequence

import torch

from ..blocks.runner import BlockRunner
from ..blocks.spread import devices_of
from ..blocks.stack import probe_ids
from ..calibration.windows import TokenWindows
from ..memory import usable_memory
from .exact import ExactLosses
from .layerwise import LayerwiseLosses

# Elements of the hidden state from which on a device is busy: 4 windows of 2048 tokens of a model 4096 wide. More
# takes memory and gains nothing; and the caches of a CPU are small.
CUDA_ELEMENTS = 2**25
CPU_ELEMENTS = 2**20


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
    num_windows = -(-len(measure.windows) // measure.ranks.size)  # of the process that has the most
    most = min(_busy(measure, longest), num_windows, limit or num_windows)
    if measure.model.device.type == "cuda" and most > 1:
        needed = _memory_of(measure, last_candidate, longest)
        most = max(1, min(most, *(usable_memory(device) // window for device, window in needed.items())))
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
    batch_size, at_a_time = min(num_windows, limit or num_windows), _busy(measure, longest)
    device = measure.model.device
    if device.type == "cuda":
        with BlockRunner(measure.model, measure.stack) as runner:
            state = runner.enter(longest[None]).hidden.nbytes
        if measure.stack.loader is not None:
            measure.stack.loader.rest()  # so that blocks are counted once
        free = usable_memory(device) - (measure.stack.loader.most_bytes if measure.stack.loader else 0)
        window = _memory_of(measure, candidates[-1], longest)[device]
        at_a_time = max(1, min(at_a_time, free // (2 * window)))
        # A state for each candidate and one for the walk, beside what running a few windows takes.
        batch_size = max(1, min(batch_size, (free - at_a_time * window) // ((len(candidates) + 1) * state)))
    measure.batch_size = measure.ranks.smallest(_even(num_windows, batch_size))
    measure.windows_at_a_time = min(at_a_time, measure.batch_size)


def _busy(measure: ExactLosses, window: torch.Tensor) -> int:
    """Windows that keep the device busy."""
    with BlockRunner(measure.model, measure.stack) as runner:
        width = runner.enter(probe_ids(measure.model)).hidden.shape[-1]
    elements = CUDA_ELEMENTS if measure.model.device.type == "cuda" else CPU_ELEMENTS
    return max(1, elements // (len(window) * width))


def _even(num_windows: int, most: int) -> int:
    """A batch size that leaves no smaller batch over, where there is one close to the most that fits."""
    return next((size for size in range(most, most // 2, -1) if num_windows % size == 0), most)


def _memory_of(measure: ExactLosses, last_candidate: int, window: torch.Tensor) -> dict[torch.device, int]:
    """Bytes that one window takes at most on each of the model's devices, beyond the weights."""
    loader = measure.stack.loader
    devices = devices_of(measure.model) if loader is None else [measure.model.device]
    trial = type(measure)(measure.model, measure.stack, TokenWindows((window,)))
    before = {}
    for device in devices:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before[device] = torch.cuda.memory_allocated(device) + (loader.most_bytes if loader else 0)
    trial(range(len(measure.stack)), [last_candidate])  # its walk passes all blocks
    return {device: max(1, torch.cuda.max_memory_allocated(device) - before[device]) for device in devices}
