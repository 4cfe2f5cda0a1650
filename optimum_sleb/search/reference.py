"""Reference: the published procedure, which runs the whole model without each candidate. Slow and simple."""

from collections.abc import Sequence

from torch import Tensor

from ..blocks.forward import evaluating
from ..calibration.windows import WindowBatch
from .candidate_losses import CandidateLosses
from .cost import reference_block_passes


class ReferenceLosses(CandidateLosses):
    """Losses of the candidates, each from a forward pass of the whole model without it."""

    def measure_without(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch, losses: Tensor
    ) -> int:
        """Write the losses without each candidate into `losses` (candidates, batch); return the block passes."""
        gone = set(range(len(self.stack))) - set(alive)
        for row, candidate in enumerate(candidates):
            with evaluating(self.model), self.stack.skipping(gone | {candidate}):
                losses[row] = self.criterion.of_model(self.model, batch)
        return reference_block_passes(alive, candidates)

    def _measure_with(self, alive: Sequence[int], batch: WindowBatch) -> Tensor:
        with evaluating(self.model), self.stack.skipping(set(range(len(self.stack))) - set(alive)):
            return self.criterion.of_model(self.model, batch)
