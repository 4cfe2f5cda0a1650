"""Exact search for models larger than the device: one walk up the stack carries all candidates' hidden states."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..blocks.runner import Stream, open_runner
from ..calibration.windows import WindowBatch
from .candidate_losses import Stack
from .exact import ExactLosses


# `ExactLosses` runs one branch of its tree after the other. Here every block is run for all branches while it is on
# the device, so it is brought there once per batch, for any number of stacks. The arithmetic is the same, but the
# hidden states of all branches are in memory at once.
@dataclass
class LayerwiseLosses(ExactLosses):
    """Losses of shortened stacks, block by block: each block comes to the device once per batch of windows."""

    windows_at_a_time: int = 1  # per forward pass; a batch holds many of them

    @property
    def forward_size(self) -> int:
        """Return the number of windows per forward pass of a block."""
        return min(self.windows_at_a_time, self.batch_size)

    def measure_batch(self, stacks: Sequence[Stack], batch: WindowBatch, losses: Tensor) -> int:
        """Write the losses with only each stack's blocks into `losses` (stacks, batch); return the block passes."""
        parts = batch.split(self.windows_at_a_time)
        blocks = sorted(set().union(*stacks))
        if self.stack.loader is not None:
            self.stack.loader.set_order([block for block in blocks if block in self.stack.forms])
        with open_runner(self.model, self.stack, self.kernels, self.criterion) as runner:
            # Rows that agree so far, with their streams of all parts.
            groups: list[tuple[list[int], list[Stream]]] = [
                (list(range(len(stacks))), [runner.start(part.ids) for part in parts])
            ]
            for block in blocks:
                for rows, streams in list(groups):
                    if without := [row for row in rows if block not in stacks[row]]:
                        if len(without) == len(rows):
                            continue
                        rows[:] = [row for row in rows if block in stacks[row]]
                        groups.append((without, list(streams)))
                    for number, stream in enumerate(streams):  # in place, so that the old state is freed at once
                        streams[number] = runner.run(stream, [block])
            for number, part in enumerate(parts):  # for all groups, so that what a criterion keeps is brought once
                columns = slice(part.span.start - batch.span.start, part.span.stop - batch.span.start)
                for rows, streams in groups:
                    losses[rows, columns] = runner.losses(streams[number].hidden, part)
            return runner.block_passes // len(parts)
