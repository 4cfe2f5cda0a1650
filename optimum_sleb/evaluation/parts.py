"""What the time of a model goes to: only what goes to the blocks gets shorter with them."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..blocks.stack import find_decoder_stack
from .timing import Clock


@dataclass(frozen=True)
class Parts:
    """Shares of the time of one run, as the device saw it.

    Attributes:
        blocks: Share between the entrance of the first block and the exit of the last one.
        head: Share of the language model's head.
        rest: All else: embedding, masks, last norm, choosing tokens, and the loop around.
        idle: Share of the time in which the GPU had nothing to do, waiting for what the program launches; `None` on a
            CPU, or where the profiler may not look. It is a part of the others.
    """

    blocks: float
    head: float
    rest: float
    idle: float | None = None

    def expected_speedup(self, dense_blocks: int, pruned_blocks: int) -> float:
        """The speed-up if blocks cost what they cost, and all else stays.

        Args:
            dense_blocks: Number of blocks of the model that was measured.
            pruned_blocks: Number of blocks of the shorter one.

        Returns:
            The factor.

        Example:
            >>> Parts(blocks=0.9, head=0.1, rest=0.0).expected_speedup(30, 24)
            1.2195121951219512
        """
        return 1 / (1 - self.blocks * (1 - pruned_blocks / dense_blocks))


def parts_of(model: PreTrainedModel, run: Callable[[], object]) -> Parts:
    """Measure what the time of a run goes to.

    Args:
        model: The model that runs, not compiled.
        run: Runs it.

    Returns:
        The shares, of one run.

    Example:
        ```python
        parts_of(model, runner(model, scenario)).head
        ```
    """
    stack, clock = find_decoder_stack(model), Clock(model.device)
    running = [stack.blocks[index] for index in sorted(stack.forms)]
    head = model.get_output_embeddings()
    blocks = _Stopwatch(clock, running[0], running[-1])
    heads = _Stopwatch(clock, head, head) if isinstance(head, nn.Module) else None
    with blocks, heads or ExitStack():
        run()  # so that nothing is made for the first time
        blocks.forget()
        if heads:
            heads.forget()
        start = clock.now()
        run()
        total = clock.between(start, clock.now())
    in_blocks, in_head = blocks.seconds() / total, heads.seconds() / total if heads else 0.0
    return Parts(
        in_blocks, in_head, max(0.0, 1 - in_blocks - in_head), _idle_share(run, clock) if clock.on_gpu else None
    )


class _Stopwatch:
    """Takes the time between the entrance of one module and the exit of another, over all calls."""

    def __init__(self, clock: Clock, first: nn.Module, last: nn.Module) -> None:
        self._clock, self._first, self._last = clock, first, last
        self._starts: list[Any] = []
        self._ends: list[Any] = []

    def __enter__(self) -> None:
        self._hooks = [
            self._first.register_forward_pre_hook(lambda *_: self._starts.append(self._clock.now())),
            self._last.register_forward_hook(lambda *_: self._ends.append(self._clock.now())),
        ]

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def forget(self) -> None:
        self._starts.clear()
        self._ends.clear()

    def seconds(self) -> float:
        return sum(self._clock.between(*moments) for moments in zip(self._starts, self._ends, strict=True))


def _idle_share(run: Callable[[], object], clock: Clock) -> float | None:
    """Share of a run in which no kernel runs. A profiler slows the program down, but not the kernels."""
    torch.cuda.synchronize(clock.device)
    start = clock.now()
    run()
    total = clock.between(start, clock.now())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize(clock.device)
    busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    # Where the profiler may not look at the GPU, it sees nothing at all.
    return max(0.0, 1 - busy / total) if busy else None
