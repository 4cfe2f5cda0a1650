"""The exact search for models larger than the device: one walk up the stack carries all candidates along.

Where `ExactLosses` runs the tail of one candidate after the other, here every block is run for all the candidates
below it while it is on the device: a step brings every block there once for each batch of windows, whatever the number
of candidates. The arithmetic is the same; the price is that all candidates' hidden states exist at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..blocks.runner import BlockRunner, Stream
from ..calibration.windows import WindowBatch
from .exact import ExactLosses


@dataclass
class LayerwiseLosses(ExactLosses):
    """Losses of the candidates, block by block; see `Measurement`.

    Attributes:
        windows_at_a_time: Windows in one forward pass. A batch holds many of them, all of which meet a block while it
            is on the device.

    Example:
        ```python
        with offloaded(model, stack, torch.device("cuda")) as stack:
            measure = LayerwiseLosses(model, stack, windows, batch_size=8)
            losses = measure(alive=range(40), candidates=range(1, 39))
        ```
    """

    windows_at_a_time: int = 1

    @property
    def forward_size(self) -> int:
        """Windows that run through a block at a time."""
        return min(self.windows_at_a_time, self.batch_size)

    def measure_batch(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch, losses: Tensor
    ) -> int:
        """Walk up the stack once, with every candidate's hidden state; see `Measurement`."""
        parts = batch.split(self.windows_at_a_time)
        self._expect(alive)
        with BlockRunner(self.model, self.stack, self.kernels) as runner:
            walk = [runner.enter(part.ids) for part in parts]
            without: dict[int, list[Stream]] = {}
            for block in alive:
                for streams in without.values():
                    for number, stream in enumerate(streams):  # in place: a state goes when the next is there
                        streams[number] = runner.run(stream, [block])
                if block in candidates:
                    without[block] = list(walk)  # it goes on from here as if the block were not there
                if block < candidates[-1]:
                    walk = [runner.run(stream, [block]) for stream in walk]
            for row, candidate in enumerate(candidates):
                for part, stream in zip(parts, without.pop(candidate), strict=True):
                    place = slice(part.place.start - batch.place.start, part.place.stop - batch.place.start)
                    losses[row, place] = runner.losses(stream.hidden, part.ids, part.targets)
            return runner.block_passes // len(parts)

    def _losses_of(self, alive: Sequence[int], batch: WindowBatch) -> Tensor:
        """Walk up the stack once; see `Measurement`."""
        parts = batch.split(self.windows_at_a_time)
        self._expect(alive)
        with BlockRunner(self.model, self.stack, self.kernels) as runner:
            walk = runner.run_all([runner.enter(part.ids) for part in parts], alive)
            ends = zip(parts, walk, strict=True)
            return torch.cat([runner.losses(stream.hidden, part.ids, part.targets) for part, stream in ends])

    def _expect(self, alive: Sequence[int]) -> None:
        if self.stack.loader is not None:
            self.stack.loader.expect([block for block in alive if block in self.stack.forms])
