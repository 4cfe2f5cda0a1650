"""Exact search for models larger than the device: one walk up the stack carries all candidates' hidden states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..blocks.runner import Stream, open_runner
from ..calibration.windows import WindowBatch
from .exact import ExactLosses


# `ExactLosses` runs the blocks above one candidate after the other. Here every block is run for all candidates below
# it while it is on the device, so a step brings each block there once per batch, for any number of candidates. The
# arithmetic is the same, but the hidden states of all candidates are in memory at once.
@dataclass
class LayerwiseLosses(ExactLosses):
    """Losses of the candidates, block by block: each block comes to the device once per batch of windows."""

    windows_at_a_time: int = 1  # per forward pass; a batch holds many of them

    @property
    def forward_size(self) -> int:
        """Return the number of windows per forward pass of a block."""
        return min(self.windows_at_a_time, self.batch_size)

    def measure_without(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch, losses: Tensor
    ) -> int:
        """Write the losses without each candidate into `losses` (candidates, batch); return the block passes."""
        parts = batch.split(self.windows_at_a_time)
        self._announce(alive)
        with open_runner(self.model, self.stack, self.kernels, self.criterion) as runner:
            walk = [runner.start(part.ids) for part in parts]
            without: dict[int, list[Stream]] = {}
            for block in alive:
                for streams in without.values():
                    for number, stream in enumerate(streams):  # in place, so that the old state is freed at once
                        streams[number] = runner.run(stream, [block])
                if block in candidates:
                    without[block] = list(walk)  # this candidate skips the block
                if block < candidates[-1]:
                    walk = [runner.run(stream, [block]) for stream in walk]
            for row, candidate in enumerate(candidates):
                for part, stream in zip(parts, without.pop(candidate), strict=True):
                    columns = slice(part.span.start - batch.span.start, part.span.stop - batch.span.start)
                    losses[row, columns] = runner.losses(stream.hidden, part)
            return runner.block_passes // len(parts)

    def _measure_with(self, alive: Sequence[int], batch: WindowBatch) -> Tensor:
        parts = batch.split(self.windows_at_a_time)
        self._announce(alive)
        with open_runner(self.model, self.stack, self.kernels, self.criterion) as runner:
            walk = runner.run_all([runner.start(part.ids) for part in parts], alive)
            ends = zip(parts, walk, strict=True)
            return torch.cat([runner.losses(stream.hidden, part) for part, stream in ends])

    def _announce(self, alive: Sequence[int]) -> None:
        if self.stack.loader is not None:
            self.stack.loader.set_order([block for block in alive if block in self.stack.forms])
