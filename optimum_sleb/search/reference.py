"""Reference: the published procedure, which runs the whole model without each candidate. Slow and simple."""

from collections.abc import Sequence

from torch import Tensor

from ..blocks.forward import evaluating
from ..calibration.windows import WindowBatch
from .candidate_losses import CandidateLosses, Stack


class ReferenceLosses(CandidateLosses):
    """Losses of shortened stacks, each from a forward pass of the whole model with the other blocks skipped."""

    def measure_batch(self, stacks: Sequence[Stack], batch: WindowBatch, losses: Tensor) -> int:
        """Write the losses with only each stack's blocks into `losses` (stacks, batch); return the block passes."""
        for row, stack in enumerate(stacks):
            with evaluating(self.model), self.stack.skipping(set(range(len(self.stack))) - set(stack)):
                losses[row] = self.criterion.of_model(self.model, batch)
        return sum(map(len, stacks))
