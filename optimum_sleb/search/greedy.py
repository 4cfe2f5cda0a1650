"""The greedy loop of SLEB: Algorithm 1 of arXiv 2402.09025."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

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
        losses: Calibration loss, summed over windows, without each candidate; `block` had the lowest.
    """

    block: int
    losses: dict[int, float]

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
    accept: Callable[[float], bool],
) -> Iterator[Step]:
    """Remove, again and again, the block whose absence hurts least in the model as it is by then.

    Args:
        measure: Gives the loss of every candidate.
        num_blocks: Number of blocks of the model.
        early_barrier: Blocks at the start of the remaining stack that are never candidates.
        latter_barrier: Blocks at the end of the remaining stack that are never candidates.
        removable: Indices of the blocks that may go at all.
        accept: Decides from the loss of the best candidate whether it goes; where not, the search ends. (A search
            for a number of blocks just takes so many steps of this iterator.)

    Yields:
        The removals, in order.

    Raises:
        NonFiniteLossError: If a loss is NaN or infinite.

    Example:
        ```python
        search = greedy_search(
            measure, 30, early_barrier=1, latter_barrier=1, removable=range(30), accept=lambda loss: loss < 1e5
        )
        print([step.block for step in search])
        ```
    """
    alive = list(range(num_blocks))
    while candidates := [block for block in alive[early_barrier : len(alive) - latter_barrier] if block in removable]:
        window_losses = measure(alive, candidates)
        _check_finite(window_losses, candidates)
        sums = window_losses.double().sum(dim=1).tolist()
        losses = dict(zip(candidates, sums, strict=True))
        best = min(candidates, key=losses.__getitem__)  # min keeps the first of equals: ties go to the lowest index
        if not accept(losses[best]):
            return
        alive.remove(best)
        yield Step(best, losses)


def _check_finite(window_losses: Tensor, candidates: Sequence[int]) -> None:
    bad = (~window_losses.isfinite()).nonzero()
    if len(bad):
        row, window = bad[0].tolist()
        raise NonFiniteLossError(
            f"The loss is {window_losses[row, window].item()} without block {candidates[row]} in window {window}; "
            "if the model is in float16, load it with dtype='bfloat16' or 'float32'."
        )
