"""A search over sets of blocks: at each depth the best few sets go on, and whole runs of blocks compete with them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..config import as_ranges
from .candidate_losses import Stack, StepLosses, check_some_finite

BlockSet = tuple[int, ...]  # indices in the model before the search, ascending


class MeasureStacks(Protocol):
    """Measures stacks of remaining blocks; all but the best `num_kept` may be given up before all windows are seen."""

    def __call__(self, stacks: Sequence[Stack], num_kept: int) -> StepLosses:
        """Return the losses by the place of a stack in the sequence."""


@dataclass(frozen=True)
class Depth:
    """The sets of one size that were measured."""

    kept: tuple[BlockSet, ...]  # the best that can go, at most the width of the beam; the lowest loss first
    losses: dict[BlockSet, float]  # calibration loss without each set, summed over windows, in nats
    stacks: tuple[Stack, ...]  # of the whole pool, dropped and refused sets too
    refused: dict[BlockSet, str] = field(default_factory=dict)  # better sets that cannot go, and why
    num_dropped: int = 0  # by a race, as clearly worse
    non_finite: dict[BlockSet, int] = field(default_factory=dict)  # with a NaN or infinite loss, and in which window

    @property
    def loss(self) -> float:
        """Return the calibration loss without the best set."""
        return self.losses[self.kept[0]]


def beam_depths(
    measure: MeasureStacks,
    num_blocks: int,
    *,
    candidates: Collection[int],  # blocks that may go
    width: int,
    with_runs: bool,
    why_not: Callable[[set[int]], str | None],  # why a set cannot be removed together, or `None`
) -> Iterator[Depth]:
    """Yield the sets of one block, of two, and so on; with `width=1` and no runs those of Algorithm 1. A depth that
    keeps no set is the last one. The caller stops iterating when enough blocks are removed.
    Raise NonFiniteLossError if no set of a size has a finite loss and none was refused."""
    kept: tuple[BlockSet, ...] = ((),)
    for size in range(1, len(candidates) + 1):
        pool = _pool(kept, sorted(candidates), runs_of=size if with_runs else 0)
        depth = _best_sets(measure, range(num_blocks), pool, width, why_not)
        yield depth
        if not depth.kept:
            return
        kept = depth.kept


def name_of(blocks: Sequence[int]) -> str:
    """Return what a message calls a set of blocks.

    >>> name_of([4]), name_of([3, 13, 14])
    ('block 4', 'blocks 3,13-14')
    """
    return f"block{'s' if len(blocks) > 1 else ''} {as_ranges(blocks)}"


def _pool(kept: Sequence[BlockSet], candidates: Sequence[int], runs_of: int) -> list[BlockSet]:
    """Return the kept sets with one more block each, and all runs of so many neighbours; each once, in their order.

    >>> _pool([(2,)], candidates=[1, 2, 3, 5], runs_of=2)
    [(1, 2), (2, 3), (2, 5)]
    """
    pool = {tuple(sorted({*blocks, one})) for blocks in kept for one in candidates if one not in blocks}
    runs = (tuple(range(first, first + runs_of)) for first in candidates) if runs_of else ()
    return sorted(pool.union(run for run in runs if set(run) <= set(candidates)))


def _best_sets(
    measure: MeasureStacks,
    blocks: Sequence[int],
    pool: Sequence[BlockSet],
    width: int,
    why_not: Callable[[set[int]], str | None],
) -> Depth:
    """Measure a pool and ask of the best sets whether they can go. A race is run again without those that turned out
    to be out of it, since what was dropped behind them may be next."""
    stacks = {one: tuple(block for block in blocks if block not in one) for one in pool}
    refused: dict[BlockSet, str] = {}
    non_finite: dict[BlockSet, int] = {}
    while True:
        pool = [one for one in pool if one not in refused and one not in non_finite]
        measured = measure([stacks[one] for one in pool], width)
        if not (refused or measured.dropped):
            check_some_finite(measured, list(map(name_of, pool)))
        losses = {pool[row]: loss for row, loss in measured.sums().items()}
        kept, refused_now = _best_that_can_go(losses, width, why_not)
        non_finite |= {pool[row]: window for row, window in measured.non_finite.items()}
        refused |= refused_now
        # One whose loss was finite up to the last windows led the race until then.
        is_short = bool(refused_now) or (bool(measured.non_finite) and len(kept) < width)
        if not (is_short and measured.dropped):
            return Depth(kept, losses, tuple(stacks.values()), refused, len(measured.dropped), non_finite)


def _best_that_can_go(
    losses: dict[BlockSet, float], width: int, why_not: Callable[[set[int]], str | None]
) -> tuple[tuple[BlockSet, ...], dict[BlockSet, str]]:
    """Return the best sets that can go, at most `width`, and the better ones that cannot, with the reasons."""
    kept: list[BlockSet] = []
    refused: dict[BlockSet, str] = {}
    # The sort is stable: ties go to the set that comes first.
    for one in sorted(losses, key=losses.__getitem__):
        if len(kept) == width:
            break
        if (reason := why_not(set(one))) is None:
            kept.append(one)
        else:
            refused[one] = reason
    return tuple(kept), refused
