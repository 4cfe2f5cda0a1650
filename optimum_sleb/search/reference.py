"""The published procedure: for every candidate, run the whole model without it. Slow, obvious, and the yardstick."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..blocks.forward import losses_of, measuring
from .measurement import Measurement


class ReferenceLosses(Measurement):
    """Losses of the candidates, each by one full forward per batch of windows; see `Measurement`.

    Example:
        ```python
        measure = ReferenceLosses(model, stack, windows)
        losses = measure(alive=range(30), candidates=range(1, 29))  # (28, windows)
        ```
    """

    def __call__(self, alive: Sequence[int], candidates: Sequence[int]) -> Tensor:
        """Measure every candidate's removal; see `Measurement`."""
        return torch.stack(
            [self.model_losses([block for block in alive if block != candidate]) for candidate in candidates]
        )

    def model_losses(self, alive: Sequence[int]) -> Tensor:
        """The losses of the model made of some of its blocks.

        Args:
            alive: Indices of the blocks that run.

        Returns:
            The loss of each window, of shape (windows,), on the CPU.

        Example:
            ```python
            dense = measure.model_losses(range(30)).sum()
            ```
        """
        losses = torch.empty(len(self.windows))
        removed = set(range(len(self.stack))) - set(alive)
        with measuring(self.model), self.stack.without(removed):
            for rows, ids in self.windows.batches(self.batch_size):
                losses[rows] = losses_of(self.model, ids)
                self.block_passes += len(alive)
                self.on_progress(len(ids))
        return losses
