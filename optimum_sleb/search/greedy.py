"""The greedy loop of SLEB: Algorithm 1 of arXiv 2402.09025."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from .candidate_losses import StepLosses, check_some_finite

# Measures the losses without each candidate, given the blocks that are left and the candidates among them.
MeasureCandidates = Callable[[Sequence[int], Sequence[int]], StepLosses]


@dataclass(frozen=True)
class Step:
    """One removal. All blocks are indices in the model before the search."""

    block: int
    losses: dict[int, float]  # calibration loss without each candidate, summed over windows, in nats
    # Better candidates that cannot be removed together with the earlier removals, and why.
    barred: dict[int, str] = field(default_factory=dict)
    # Candidates that a race dropped as clearly worse, and after how many windows.
    dropped: dict[int, int] = field(default_factory=dict)
    # Candidates without which a loss is NaN or infinite, and in which window; they are left out of this step only.
    non_finite: dict[int, int] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Return the calibration loss after this removal, summed over windows, in nats."""
        return self.losses[self.block]


@dataclass
class Refusals:
    """Blocks that cannot be removed with those that are gone: asked one at a time, remembered for the whole search."""

    find_reason: Callable[[set[int]], str | None]  # why a set of blocks cannot be removed together, or `None`
    reasons: dict[int, str] = field(default_factory=dict)

    def refuse(self, removed: set[int], block: int) -> bool:
        """Return whether a block cannot be removed after others, and note the reason."""
        reason = self.find_reason({*removed, block})
        if reason is not None:
            self.reasons[block] = reason
        return reason is not None


def greedy_removals(
    measure: MeasureCandidates,
    num_blocks: int,
    *,
    candidates: Collection[int],  # blocks that may go, at any step
    refusals: Refusals,
) -> Iterator[Step]:
    """Yield removals in order: at each step the candidate without which the calibration loss is lowest.
    The caller stops iterating when enough blocks are removed.
    Raise NonFiniteLossError if a step has no candidate with a finite loss and none was refused before."""
    alive = list(range(num_blocks))
    non_finite: dict[int, int] = {}  # of this step
    refused_before: set[int] = set()  # in earlier steps
    while left := [one for one in alive if one in candidates and one not in {*refusals.reasons, *non_finite}]:
        measured = measure(alive, left)
        non_finite |= measured.non_finite
        # Other candidates may have a finite loss: refused, or dropped by a race behind one that became non-finite.
        if not (refusals.reasons or measured.dropped):
            check_some_finite(measured)
        removed = set(range(num_blocks)) - set(alive)
        block = _first_not_refused(measured.sums(), removed, refusals, only_the_best=bool(measured.dropped))
        if block is None:  # all that are known are refused; those that a race dropped run again
            continue
        barred = {one: reason for one, reason in refusals.reasons.items() if one not in refused_before}
        alive.remove(block)
        yield Step(block, measured.sums(), barred, measured.dropped, non_finite)
        non_finite, refused_before = {}, set(refusals.reasons)


def _first_not_refused(
    losses: dict[int, float], removed: set[int], refusals: Refusals, *, only_the_best: bool
) -> int | None:
    """Return the best candidate that may go. After a race only the best is asked about: the next best may have been
    dropped, so the race is run again without a refused one."""
    # The sort is stable: ties go to the lowest index, as published.
    for block in sorted(losses, key=losses.__getitem__):
        if not refusals.refuse(removed, block):
            return block
        if only_the_best:
            return None
    return None
