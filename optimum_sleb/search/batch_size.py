"""Batch size of a search: enough token windows to keep the device busy, as far as its memory allows."""

import torch

from ..blocks.devices import devices_of
from ..blocks.forward import vocab_size_of
from ..blocks.losses import MAX_LOGITS
from ..blocks.runner import open_runner
from ..blocks.stack import probe_ids
from ..calibration.windows import TokenWindows
from ..runtime.memory import usable_memory
from .exact import ExactLosses
from .layerwise import LayerwiseLosses

# Elements of the hidden state that keep a device busy. For CUDA: 4 windows of 2048 tokens at a width of 4096; more
# takes memory and gains no time. The CPU value is smaller because its caches are.
CUDA_ELEMENTS = 2**25
CPU_ELEMENTS = 2**20


def choose_batch_size(losses: ExactLosses, last_candidate: int, limit: int | None = None) -> int:
    """Return the number of windows per forward pass, at most `limit`. `losses` itself runs nothing.
    Raise OutOfMemoryError if not even one window fits."""
    longest = max(losses.windows.windows, key=len)
    num_windows = -(-len(losses.windows) // losses.ranks.size)  # of the process with most windows
    most = min(_busy(losses, longest), num_windows, limit or num_windows)
    if losses.model.device.type == "cuda" and most > 1:
        needed = _memory_of(losses, last_candidate, longest)
        most = max(1, min(most, *(usable_memory(device) // window for device, window in needed.items())))
    return losses.ranks.smallest(_even(num_windows, most))


def fit_layerwise(losses: LayerwiseLosses, last_candidate: int, num_stacks: int, limit: int | None = None) -> None:
    """Set `losses.batch_size` (windows carried up `num_stacks` stacks together, at most `limit`) and
    `losses.windows_at_a_time` (windows per forward pass).
    Raise OutOfMemoryError if not even one window fits."""
    longest = max(losses.windows.windows, key=len)
    num_windows = -(-len(losses.windows) // losses.ranks.size)
    batch_size, at_a_time = min(num_windows, limit or num_windows), _busy(losses, longest)
    device = losses.model.device
    if device.type == "cuda":
        with open_runner(losses.model, losses.stack) as runner:
            state = runner.start(longest[None]).hidden.nbytes
        if losses.stack.loader is not None:
            losses.stack.loader.release_all()  # so that the next line does not count blocks on the device twice
        free = usable_memory(device) - (losses.stack.loader.most_bytes if losses.stack.loader else 0)
        window = _memory_of(losses, last_candidate, longest)[device]
        at_a_time = max(1, min(at_a_time, free // (2 * window)))
        # One hidden state per stack and one for the walk, beside the memory of one forward pass.
        batch_size = max(1, min(batch_size, (free - at_a_time * window) // ((num_stacks + 1) * state)))
    losses.batch_size = losses.ranks.smallest(_even(num_windows, batch_size))
    losses.windows_at_a_time = min(at_a_time, losses.batch_size)


def _busy(losses: ExactLosses, window: torch.Tensor) -> int:
    """Return the number of windows that keep the device busy, or whose logits fit where they are needed whole."""
    with open_runner(losses.model, losses.stack) as runner:
        width = runner.start(probe_ids(losses.model)).hidden.shape[-1]
    elements = CUDA_ELEMENTS if losses.model.device.type == "cuda" else CPU_ELEMENTS
    most = elements // (len(window) * width)
    if losses.criterion.needs_whole_logits:
        most = min(most, MAX_LOGITS // (len(window) * vocab_size_of(losses.model)))
    return max(1, most)


def _even(num_windows: int, most: int) -> int:
    """Return a batch size that divides `num_windows`, if there is one above `most` / 2; else `most`."""
    return next((size for size in range(most, most // 2, -1) if num_windows % size == 0), most)


def _memory_of(losses: ExactLosses, last_candidate: int, window: torch.Tensor) -> dict[torch.device, int]:
    """Return the peak memory of one window in bytes, without the weights, for each of the model's devices."""
    loader = losses.stack.loader
    devices = devices_of(losses.model) if loader is None else [losses.model.device]
    trial = type(losses)(losses.model, losses.stack, TokenWindows((window,)), criterion=losses.criterion)
    before = {}
    for device in devices:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before[device] = torch.cuda.memory_allocated(device) + (loader.most_bytes if loader else 0)
    trial.measure(range(len(losses.stack)), [last_candidate])  # the last one: the walk then passes all blocks
    return {device: max(1, torch.cuda.max_memory_allocated(device) - before[device]) for device in devices}
