"""Timing of functions in turns, on any device."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Times of the repeats of one function."""

    seconds: tuple[float, ...]  # of each repeat
    peak_bytes: int | None = None  # memory above what was allocated before the warm-up; None on a CPU

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Quartiles, in seconds."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


class Clock:
    """Clock of a device: CUDA events on a GPU, because kernels run asynchronously; else `perf_counter`."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.device = device

    def now(self) -> float | torch.cuda.Event:
        """Return the time point at which the device gets here, without waiting for it."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
        """Return the seconds between two time points; waits until the device has passed them."""
        if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
            end.synchronize()
            return start.elapsed_time(end) / 1000
        assert isinstance(start, float)
        assert isinstance(end, float)
        return end - start


def time_in_turns(
    runs: Sequence[Callable[[], object]], device: torch.device, *, repeats: int, warm_up: int
) -> list[Timing]:
    """Time functions in turns, A B A B, so that a drift of the machine affects all alike.

    >>> first, second = time_in_turns([lambda: 1, lambda: 2], torch.device("cpu"), repeats=3, warm_up=1)
    >>> len(first.seconds), first.peak_bytes
    (3, None)
    """
    clock = Clock(device)
    peaks: list[int | None] = []
    for run in runs:
        if clock.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) if clock.on_gpu else 0
        for _ in range(warm_up):
            run()
        peaks.append(torch.cuda.max_memory_allocated(device) - before if clock.on_gpu else None)
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for taken, run in zip(seconds, runs, strict=True):
            if clock.on_gpu:
                torch.cuda.synchronize(device)
            start = clock.now()
            run()
            taken.append(clock.between(start, clock.now()))
    return [Timing(tuple(taken), peak) for taken, peak in zip(seconds, peaks, strict=True)]
