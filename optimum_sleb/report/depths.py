"""The part of a report that a search over sets writes: which sets were measured at each depth, and which was best."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..config import as_ranges
from .records import Amount, BlockNumber, Count, Loss, share_above


@dataclass(frozen=True)
class SetRecord:
    """A set of blocks, all removed at once. Blocks are named by their number in the dense model, ascending."""

    removed: tuple[BlockNumber, ...]
    loss: Loss  # calibration loss without these blocks, in nats, summed over windows, before any compensation
    held_back_loss: Amount | None = None  # on the held-back windows, compensated; None where it was not compensated


@dataclass(frozen=True)
class DepthRecord:
    """The best set of one size, and all that it was compared with. It need not contain the best set of a size less."""

    removed: tuple[BlockNumber, ...]  # the best set: compensated, by the held-back loss, else by the loss
    sets: tuple[SetRecord, ...]  # those measured on all windows, the lowest loss first
    seconds: Amount
    num_dropped: Count = 0  # sets that a race gave up
    num_non_finite: Count = 0  # sets with a NaN or infinite loss
    refused: dict[str, str] = field(default_factory=dict)  # better sets that cannot go together (as ranges), and why
    compensated_loss: Loss | None = None  # calibration loss of the best set, compensated; None where it was not

    @property
    def loss(self) -> float:
        """Return the calibration loss of the best set, before compensation."""
        return next(one.loss for one in self.sets if one.removed == self.removed)

    @property
    def final_loss(self) -> float:
        """Return the calibration loss of the best set, after any compensation."""
        return self.loss if self.compensated_loss is None else self.compensated_loss

    @property
    def decided_by_held_back(self) -> bool:
        """Return whether the best set was chosen by its held-back loss, after compensation."""
        return any(one.removed == self.removed and one.held_back_loss is not None for one in self.sets)

    @property
    def margin(self) -> float | None:
        """Return by which share the next best set was worse, by the loss that decided; `None` without another set."""
        by_held_back = self.decided_by_held_back
        losses = {one.removed: one.held_back_loss if by_held_back else one.loss for one in self.sets}
        best = losses.pop(self.removed)
        return share_above(best, [loss for loss in losses.values() if loss is not None])

    @property
    def num_measured(self) -> int:
        """Return the number of sets that were tried at this depth."""
        return len(self.sets) + self.num_dropped + self.num_non_finite + len(self.refused)


def in_words(blocks: Iterable[int]) -> str:
    """Return block numbers as a reader takes them in, runs of blocks by their ends.

    >>> in_words((3, 13, 14, 15))
    '3, 13 to 15'
    """
    return as_ranges(blocks).replace(",", ", ").replace("-", " to ")
