"""Exact search: the decisions and losses of the published procedure, with about half the block passes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..blocks.kernels import UNCOMPILED, Kernels
from ..blocks.runner import open_runner
from ..calibration.windows import WindowBatch
from .candidate_losses import CandidateLosses


# All candidates share the blocks below them. One walk up the stack holds the hidden state before each block;
# from there the blocks above, without that block, give the candidate's loss. `search/cost.py` counts the passes.
@dataclass
class ExactLosses(CandidateLosses):
    """Losses of the candidates, computed with one shared walk up the stack."""

    kernels: Kernels = UNCOMPILED

    @property
    def forward_size(self) -> int:
        """Return the number of windows per forward pass of a block."""
        return self.batch_size

    def measure_without(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch, losses: Tensor
    ) -> int:
        """Write the losses without each candidate into `losses` (candidates, batch); return the block passes."""
        row_of = {block: row for row, block in enumerate(candidates)}
        with open_runner(self.model, self.stack, self.kernels, self.criterion) as runner:
            stream = runner.start(batch.ids)
            for position, block in enumerate(alive):
                if block in row_of:
                    tail = runner.run(stream, alive[position + 1 :])
                    losses[row_of[block]] = runner.losses(tail.hidden, batch)
                if block == candidates[-1]:
                    break
                stream = runner.run(stream, [block])
            return runner.block_passes

    def _measure_with(self, alive: Sequence[int], batch: WindowBatch) -> Tensor:
        with open_runner(self.model, self.stack, self.kernels, self.criterion) as runner:
            stream = runner.run(runner.start(batch.ids), alive)
            return runner.losses(stream.hidden, batch)
