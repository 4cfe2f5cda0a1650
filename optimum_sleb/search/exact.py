"""The exact search: the published decisions and losses, for about half the block passes and a fraction of the memory.

All candidates share what comes before them. One walk up the stack holds the hidden state at each block's entrance;
from there the rest of the stack, without that block, gives the candidate's loss. `search.cost` tells what that saves.
"""

from collections.abc import Sequence

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

    def _measure_batch(self, alive: Sequence[int], candidates: Sequence[int], ids: Tensor, losses: Tensor) -> int:
        """Walk up the stack once, and try every candidate from its entrance; see `Measurement`."""
        row_of = {block: row for row, block in enumerate(candidates)}
        with BlockRunner(self.model, self.stack) as runner:
            stream = runner.enter(ids)
            for position, block in enumerate(alive):
                if block in row_of:
                    tail = runner.run(stream, alive[position + 1 :])
                    losses[row_of[block]] = self._losses(runner, tail.hidden, ids)
                if block == candidates[-1]:
                    break
                stream = runner.run(stream, [block])
            return runner.block_passes

    def _losses(self, runner: BlockRunner, hidden: Tensor, ids: Tensor) -> Tensor:
        def logits_between(start: int, stop: int) -> Tensor:
            # Before the batch there can be a dimension of the family's own (Gemma 3n keeps four predictions).
            return runner.logits(hidden[..., start:stop, :], ids[:, start:stop])

        return window_losses(logits_between, ids, vocab_size_of(self.model))
