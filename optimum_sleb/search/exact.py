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
            # Stacks (by row) that agree up to a stream, with the block that is next, and their blocks above that.
            waiting: list[tuple[Stream, Stack, dict[int, Stack]]]
            waiting = [(runner.start(batch.ids), (), dict(enumerate(stacks)))]
            while waiting:
                stream, block, above = waiting.pop()
                if len(above) == 1:
                    ((row, blocks),) = above.items()
                    losses[row] = runner.losses(runner.run(stream, block + blocks).hidden, batch)
                    continue
                stream = runner.run(stream, block)
                branches: dict[Stack, dict[int, Stack]] = {}
                for row, blocks in above.items():
                    branches.setdefault(blocks[:1], {})[row] = blocks[1:]
                # The last one goes first, so that the trunk, which is the longest way, holds no stream of a branch.
                largest_first = sorted(branches.items(), key=lambda branch: -len(branch[1]))
                waiting += [(stream, next_block, branch) for next_block, branch in largest_first]
            return runner.block_passes
