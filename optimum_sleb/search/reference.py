"""The published procedure: for every candidate, run the whole model without it. Slow, obvious, and the yardstick."""

from collections.abc import Sequence

from torch import Tensor

from ..blocks.forward import losses_of, measuring
from ..calibration.windows import WindowBatch
from .cost import reference_block_passes
from .measurement import Measurement


class ReferenceLosses(Measurement):
    """Losses of the candidates, each by one full forward per batch of windows; see `Measurement`.

    Example:
        ```python
        measure = ReferenceLosses(model, stack, windows)
        losses = measure(alive=range(30), candidates=range(1, 29))  # (28, windows)
        ```
    """

    def measure_batch(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch, losses: Tensor
    ) -> int:
        """Run the model without each candidate; see `Measurement`."""
        gone = set(range(len(self.stack))) - set(alive)
        for row, candidate in enumerate(candidates):
            with measuring(self.model), self.stack.without(gone | {candidate}):
                losses[row] = losses_of(self.model, batch.ids, batch.targets)
        return reference_block_passes(alive, candidates)

    def _losses_of(self, alive: Sequence[int], batch: WindowBatch) -> Tensor:
        """Run the model without the blocks that are gone; see `Measurement`."""
        with measuring(self.model), self.stack.without(set(range(len(self.stack))) - set(alive)):
            return losses_of(self.model, batch.ids, batch.targets)
