"""The greedy loop of SLEB: Algorithm 1 of arXiv 2402.09025."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from .measurement import StepLosses

# Measures, for the blocks that are alive, the candidates among them.
MeasureCandidates = Callable[[Sequence[int], Sequence[int]], StepLosses]


@dataclass(frozen=True)
class Step:
    """One removal.

    Attributes:
        block: Index of the removed block in the model as it came.
        losses: Calibration loss, summed over windows, without each candidate; `block` had the lowest of those that
            could be removed.
        barred: Better candidates that could not be removed together with the blocks removed before, and why.
        dropped: Candidates that were given up as surely worse, and after how many windows.
        non_finite: Candidates without which a loss is NaN or infinite, and in which window; they are out of this step.
    """

    block: int
    losses: dict[int, float]
    barred: dict[int, str] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)
    non_finite: dict[int, int] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Calibration loss of the model without the removed block (and those removed before)."""
        return self.losses[self.block]


def greedy_search(
    measure: MeasureCandidates,
    num_blocks: int,
    *,
    early_barrier: int,
    latter_barrier: int,
    removable: Collection[int],
    refusal: Callable[[set[int], int], str | None],
    accept: Callable[[Step], bool],
) -> Iterator[Step]:
    """Remove, again and again, the block whose absence hurts least in the model as it is by then.

    Args:
        measure: Gives the loss of every candidate.
        num_blocks: Number of blocks of the model.
        early_barrier: Blocks at the start of the remaining stack that are never candidates.
        latter_barrier: Blocks at the end of the remaining stack that are never candidates.
        removable: Indices of the blocks that may go at all.
        refusal: Says why a block cannot go with those removed before (a set, and the block), or `None`. It is asked
            about the best candidate of a step; where it refuses, that block is barred and the next best is taken.
        accept: Decides whether the best candidate goes; where not, the search ends. It may change weights of the
            blocks that are left, on which the next step is then measured. (A search for a number of blocks just takes
            so many steps of this iterator.)

    Yields:
        The removals, in order.

    Raises:
        NonFiniteLossError: If a step has no candidate without which every loss is finite, and none was refused.

    Example:
        ```python
        search = greedy_search(
            measure,
            30,
            early_barrier=1,
            latter_barrier=1,
            removable=range(30),
            refusal=lambda removed, block: None,
            accept=lambda step: step.loss < 1e5,
        )
        print([step.block for step in search])
        ```
    """
    alive = list(range(num_blocks))
    barred: dict[int, str] = {}
    while candidates := [
        block
        for block in alive[early_barrier : len(alive) - latter_barrier]
        if block in removable and block not in barred
    ]:
        refusal_now = partial(refusal, set(range(num_blocks)) - set(alive))
        step = _best_removal(measure, alive, candidates, refusal_now, some_refused=bool(barred))
        if step is None or not accept(step):
            return
        alive.remove(step.block)
        barred |= step.barred
        yield step


def _best_removal(
    measure: MeasureCandidates,
    alive: Sequence[int],
    candidates: Sequence[int],
    refusal: Callable[[int], str | None],
    *,
    some_refused: bool,
) -> Step | None:
    """The best candidate that may go; `None` where all are refused, but those without which a loss is not finite."""
    barred: dict[int, str] = {}
    non_finite: dict[int, int] = {}
    while remaining := [block for block in candidates if block not in barred and block not in non_finite]:
        measured = measure(alive, remaining)
        non_finite |= measured.non_finite
        if not measured.losses and (barred or some_refused or measured.dropped):
            continue  # there were finite ones: refused, or given up for one that turned out not to be
        losses = measured.sums()
        # The sort is stable: ties go to the lowest index, as published.
        for block in sorted(losses, key=losses.__getitem__):
            reason = refusal(block)
            if reason is None:
                return Step(block, losses, barred, measured.dropped, non_finite)
            barred[block] = reason
            if measured.dropped:
                break  # the next best may have left the race: it is run again without the refused one
    return None
