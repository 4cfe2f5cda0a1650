"""The greedy loop of SLEB: Algorithm 1 of arXiv 2402.09025."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import NonFiniteLossError

# Gives, for the blocks that are alive and the candidates among them, the loss of each window without each candidate,
# of shape (candidates, windows): see `Measurement`.
MeasureCandidates = Callable[[Sequence[int], Sequence[int]], Tensor]


@dataclass(frozen=True)
class Step:
    """One removal.

    Attributes:
        block: Index of the removed block in the model as it came.
        losses: Calibration loss, summed over windows, without each candidate; `block` had the lowest of those that
            could be removed.
        barred: Better candidates that could not be removed together with the blocks removed before, and why.
    """

    block: int
    losses: dict[int, float]
    barred: dict[int, str] = field(default_factory=dict)

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
    accept: Callable[[float], bool],
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
        accept: Decides from the loss of the best candidate whether it goes; where not, the search ends. (A search
            for a number of blocks just takes so many steps of this iterator.)

    Yields:
        The removals, in order.

    Raises:
        NonFiniteLossError: If a loss is NaN or infinite.

    Example:
        ```python
        search = greedy_search(
            measure,
            30,
            early_barrier=1,
            latter_barrier=1,
            removable=range(30),
            refusal=lambda removed, block: None,
            accept=lambda loss: loss < 1e5,
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
        window_losses = measure(alive, candidates)
        _check_finite(window_losses, candidates)
        losses = dict(zip(candidates, window_losses.double().sum(dim=1).tolist(), strict=True))
        removed = set(range(num_blocks)) - set(alive)
        newly_barred = {}
        # The sort is stable: ties go to the lowest index, as published.
        for best in sorted(candidates, key=losses.__getitem__):
            reason = refusal(removed, best)
            if reason is None:
                break
            newly_barred[best] = reason
        else:
            return
        if not accept(losses[best]):
            return
        alive.remove(best)
        barred |= newly_barred
        yield Step(best, losses, newly_barred)


def _check_finite(window_losses: Tensor, candidates: Sequence[int]) -> None:
    bad = (~window_losses.isfinite()).nonzero()
    if len(bad):
        row, window = bad[0].tolist()
        raise NonFiniteLossError(
            f"The loss is {window_losses[row, window].item()} without block {candidates[row]} in window {window}; "
            "if the model is in float16, load it with dtype='bfloat16' or 'float32'."
        )
