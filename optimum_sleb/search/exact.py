"""Exact search: the decisions and losses of the published procedure, with about half the block passes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..blocks.kernels import UNCOMPILED, Kernels
from ..blocks.runner import Stream, open_runner
from ..calibration.windows import WindowBatch
from .candidate_losses import CandidateLosses, Stack


# Stacks share the blocks below the first one in which they differ. One walk up a tree of them runs every shared block
# once; of a greedy step, whose candidates differ in one block each, this tree is a trunk with a branch per candidate.
# `search/cost.py` counts the passes.
@dataclass
class ExactLosses(CandidateLosses):
    """Losses of shortened stacks, computed with one shared walk up their common blocks."""

    kernels: Kernels = UNCOMPILED

    @property
    def forward_size(self) -> int:
        """Return the number of windows per forward pass of a block."""
        return self.batch_size

    def measure_batch(self, stacks: Sequence[Stack], batch: WindowBatch, losses: Tensor) -> int:
        """Write the losses with only each stack's blocks into `losses` (stacks, batch); return the block passes."""
        with open_runner(self.model, self.stack, self.kernels, self.criterion) as runner:
            # Stacks (by row) that agree up to a stream, given by their blocks above it, of which the first ones wait.
            waiting: list[tuple[Stream, Stack, dict[int, Stack]]] = [
                (runner.start(batch.ids), (), dict(enumerate(stacks)))
            ]
            while waiting:
                stream, first, above = waiting.pop()
                if len(above) == 1:
                    ((row, blocks),) = above.items()
                    losses[row] = runner.losses(runner.run(stream, (*first, *blocks)).hidden, batch)
                    continue
                stream = runner.run(stream, first)
                branches: dict[Stack, dict[int, Stack]] = {}
                for row, blocks in above.items():
                    branches.setdefault(blocks[:1], {})[row] = blocks[1:]
                # The smallest branch runs first, up to its end, so that few hidden states exist at once.
                ordered = sorted(branches.items(), key=lambda branch: len(branch[1]), reverse=True)
                waiting.extend((stream, first, branch) for first, branch in ordered)
            return runner.block_passes
