"""Greedy loop of SLEB: Algorithm 1 of arXiv 2402.09025."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from .candidate_losses import StepLosses

# Measures candidates, given the remaining blocks and the candidates among them.
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


def greedy_search(
    measure: MeasureCandidates,
    num_blocks: int,
    *,
    early_barrier: int,  # blocks at the start of the remaining stack that are never candidates
    latter_barrier: int,  # the same at its end
    removable: Collection[int],
    # Says why a block cannot be removed together with a set of earlier removals, or `None`. It is asked about the best
    # candidate of a step; a refused block is barred for the rest of the search, and the next best is asked about.
    refusal: Callable[[set[int], int], str | None],
    # Tells whether the best candidate is removed; the search ends if not. It may change the weights of the remaining
    # blocks; the next step is measured with them.
    accept: Callable[[Step], bool],
) -> Iterator[Step]:
    """Yield removals in order: at each step the candidate without which the calibration loss is lowest.
    The caller stops iterating when enough blocks are removed.
    Raise NonFiniteLossError if a step has no candidate with a finite loss and none was refused before."""
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
    """Return the best candidate that is not refused; `None` if all with a finite loss are refused."""
    barred: dict[int, str] = {}
    non_finite: dict[int, int] = {}
    while remaining := [block for block in candidates if block not in barred and block not in non_finite]:
        measured = measure(alive, remaining)
        non_finite |= measured.non_finite
        if not measured.losses and (barred or some_refused or measured.dropped):
            continue  # candidates with a finite loss exist: refused, or dropped behind one that became non-finite
        losses = measured.sums()
        # The sort is stable: ties go to the lowest index, as published.
        for block in sorted(losses, key=losses.__getitem__):
            reason = refusal(block)
            if reason is None:
                return Step(block, losses, barred, measured.dropped, non_finite)
            barred[block] = reason
            if measured.dropped:
                break  # the next best may have been dropped: race again without the refused block
    return None
