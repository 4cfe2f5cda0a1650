"""Shares of the time of a run. Only the share of the decoder blocks shrinks when blocks are removed."""

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..blocks.stack import find_decoder_stack
from ..blocks.state import removing_hooks
from .timing import Clock

_RUNS = 3


@dataclass(frozen=True)
class TimeShares:
    """Shares of the time of one run, measured on the device."""

    blocks: float  # from the entrance of the first block to the exit of the last one
    head: float
    rest: float  # embedding, masks, last norm, choice of tokens, the loop around them
    # GPU without work, waiting for launches; part of the other shares. None on a CPU or without profiler access.
    idle: float | None = None

    def expected_speedup(self, dense_blocks: int, pruned_blocks: int) -> float:
        """Return the speed-up if only the time of the blocks shrinks, in proportion to their number.

        >>> TimeShares(blocks=0.9, head=0.1, rest=0.0).expected_speedup(30, 24)
        1.2195121951219512
        """
        return 1 / (1 - self.blocks * (1 - pruned_blocks / dense_blocks))


def measure_time_shares(model: PreTrainedModel, run: Callable[[], object]) -> TimeShares:
    """Measure the shares of one run of a model that is not compiled."""
    stack, clock = find_decoder_stack(model), Clock(model.device)
    running = [stack.blocks[index] for index in sorted(stack.forms)]
    head = model.get_output_embeddings()
    blocks = _Stopwatch(clock, running[0], running[-1])
    heads = _Stopwatch(clock, head, head) if isinstance(head, nn.Module) else None
    with blocks.running(), heads.running() if heads else nullcontext():
        run()  # warm-up
        blocks.forget()
        if heads:
            heads.forget()
        start = clock.now()
        run()
        total = clock.between(start, clock.now())
    in_blocks, in_head = blocks.seconds() / total, heads.seconds() / total if heads else 0.0
    return TimeShares(
        in_blocks, in_head, max(0.0, 1 - in_blocks - in_head), _idle_share(run, clock) if clock.on_gpu else None
    )


def expected_speedup(shares: Sequence[float], removed: Collection[int]) -> float:
    """Return the speed-up if only the time of the removed blocks is saved; `shares` are those of all blocks.

    >>> round(expected_speedup([0.25, 0.25, 0.3], {2}), 3)
    1.429
    """
    return 1 / (1 - sum(shares[block] for block in removed))


def measure_block_shares(model: PreTrainedModel, run: Callable[[], object]) -> list[float]:
    """Measure the share of a run's time that each block takes; the median of some runs.

    Blocks of one kind, of the same class and with weights of the same shapes, take the same time up to noise, so each
    gets the mean of its kind. Their sum is the time between the entrance of the first block and the exit of the last.
    """
    stack, clock = find_decoder_stack(model), Clock(model.device)
    running = {index: stack.blocks[index] for index in sorted(stack.forms)}
    in_blocks = statistics.median(measure_time_shares(model, run).blocks for _ in range(_RUNS))
    watches = {index: _Stopwatch(clock, block, block) for index, block in running.items()}
    with ExitStack() as timed:
        for watch in watches.values():
            timed.enter_context(watch.running())
        run()
    seconds = {index: watch.seconds() for index, watch in watches.items()}
    kinds = {index: _kind_of(block) for index, block in running.items()}
    means = {
        kind: statistics.mean(seconds[index] for index in running if kinds[index] == kind) for kind in kinds.values()
    }
    whole = sum(seconds.values())
    return [in_blocks * means[kinds[index]] / whole if index in kinds else 0.0 for index in range(len(stack))]


def _kind_of(block: nn.Module) -> tuple[Any, ...]:
    shapes = tuple((name, tuple(parameter.shape)) for name, parameter in block.named_parameters())
    return type(block).__name__, getattr(block, "attention_type", None), shapes


class _Stopwatch:
    """Total time between the entrance of one module and the exit of another, over all calls."""

    def __init__(self, clock: Clock, first: nn.Module, last: nn.Module) -> None:
        self._clock, self._first, self._last = clock, first, last
        self._starts: list[Any] = []
        self._ends: list[Any] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        with removing_hooks() as hooks:
            hooks.append(self._first.register_forward_pre_hook(lambda *_: self._starts.append(self._clock.now())))
            hooks.append(self._last.register_forward_hook(lambda *_: self._ends.append(self._clock.now())))
            yield

    def forget(self) -> None:
        self._starts.clear()
        self._ends.clear()

    def seconds(self) -> float:
        return sum(self._clock.between(*moments) for moments in zip(self._starts, self._ends, strict=True))


def _idle_share(run: Callable[[], object], clock: Clock) -> float | None:
    """Return the share of a run in which no GPU kernel runs; `None` if the profiler has no access."""
    torch.cuda.synchronize(clock.device)
    start = clock.now()
    run()
    total = clock.between(start, clock.now())
    # The profiler slows the program down, but not the kernels, so the total is timed without it.
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize(clock.device)
    busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    # Without access to the GPU, the profiler records no kernel at all.
    return max(0.0, 1 - busy / total) if busy else None
