"""The exact search: the published decisions and losses, for about half the block passes and a fraction of the memory.

All candidates share what comes before them. One walk up the stack holds the hidden state at each block's entrance;
from there the rest of the stack, without that block, gives the candidate's loss. A step over n alive blocks with n - 2
candidates takes (n - 2) + (n - 2)(n - 1) / 2 block passes per batch, against (n - 2)(n - 1) for the published loop.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..blocks.forward import vocab_size_of
from ..blocks.runner import BlockRunner
from ..losses import window_losses
from .measurement import Measurement


class ExactLosses(Measurement):
    """Losses of the candidates, with the work before each candidate shared; see `Measurement`.

    Example:
        ```python
        measure = ExactLosses(model, stack, windows)
        losses = measure(alive=range(30), candidates=range(1, 29))  # (28, windows)
        ```
    """

    def __call__(self, alive: Sequence[int], candidates: Sequence[int]) -> Tensor:
        """Measure every candidate's removal; see `Measurement`."""
        # Kept on the device until the step ends, so that the host never waits for it in between.
        losses = torch.empty(len(candidates), len(self.windows), device=self.model.device)
        row_of = {block: row for row, block in enumerate(candidates)}
        with BlockRunner(self.model, self.stack) as runner:
            for columns, ids in self.windows.batches(self.batch_size):
                ids = ids.to(self.model.device)
                stream = runner.enter(ids)
                for position, block in enumerate(alive):
                    if block in row_of:
                        tail = runner.run(stream, alive[position + 1 :])
                        losses[row_of[block], columns] = self._losses(runner, tail.hidden, ids)
                        self.on_progress(len(ids))
                    if block == candidates[-1]:
                        break
                    stream = runner.run(stream, [block])
            self.block_passes += runner.block_passes
        return losses.cpu()

    def _losses(self, runner: BlockRunner, hidden: Tensor, ids: Tensor) -> Tensor:
        def logits_between(start: int, stop: int) -> Tensor:
            # Before the batch there can be a dimension of the family's own (Gemma 3n keeps four predictions).
            return runner.logits(hidden[..., start:stop, :], ids[:, start:stop])

        return window_losses(logits_between, ids, vocab_size_of(self.model))
