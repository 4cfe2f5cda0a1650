"""The exact search: the published decisions and losses, for about half the block passes and a fraction of the memory.

All candidates share what comes before them. One walk up the stack holds the hidden state at each block's entrance;
from there the rest of the stack, without that block, gives the candidate's loss. `search.cost` tells what that saves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..blocks.kernels import PLAIN, Kernels
from ..blocks.runner import BlockRunner
from ..calibration.windows import WindowBatch
from .measurement import Measurement


@dataclass
class ExactLosses(Measurement):
    """Losses of the candidates, with the work before each candidate shared; see `Measurement`.

    Attributes:
        kernels: How blocks and loss are called.

    Example:
        ```python
        measure = ExactLosses(model, stack, windows)
        losses = measure(alive=range(30), candidates=range(1, 29))  # (28, windows)
        ```
    """

    kernels: Kernels = PLAIN

    @property
    def forward_size(self) -> int:
        """Windows that run through a block at a time."""
        return self.batch_size

    def measure_batch(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch, losses: Tensor
    ) -> int:
        """Walk up the stack once, and try every candidate from its entrance; see `Measurement`."""
        row_of = {block: row for row, block in enumerate(candidates)}
        with BlockRunner(self.model, self.stack, self.kernels) as runner:
            stream = runner.enter(batch.ids)
            for position, block in enumerate(alive):
                if block in row_of:
                    tail = runner.run(stream, alive[position + 1 :])
                    losses[row_of[block]] = runner.losses(tail.hidden, batch.ids, batch.targets)
                if block == candidates[-1]:
                    break
                stream = runner.run(stream, [block])
            return runner.block_passes

    def _losses_of(self, alive: Sequence[int], batch: WindowBatch) -> Tensor:
        """Walk up the whole stack; see `Measurement`."""
        with BlockRunner(self.model, self.stack, self.kernels) as runner:
            stream = runner.run(runner.enter(batch.ids), alive)
            return runner.losses(stream.hidden, batch.ids, batch.targets)
