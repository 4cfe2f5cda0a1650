"""The losses of the dense model, from its last hidden states where its divergence keeps them: no block runs again."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..blocks.divergence import Divergence
from ..blocks.runner import open_runner
from ..calibration.windows import WindowBatch
from .candidate_losses import CandidateLosses, Stack
from .exact import ExactLosses


@dataclass
class DenseLosses(CandidateLosses):
    """Losses without any removal, by norm and head alone."""

    divergence: Divergence | None = None  # holds the last hidden states of all windows

    def measure_batch(self, stacks: Sequence[Stack], batch: WindowBatch, losses: Tensor) -> int:
        """Write the losses of the whole stack into `losses` (1, batch); return the block passes: none."""
        assert self.divergence is not None
        with open_runner(self.model, self.stack, criterion=self.criterion) as runner:
            losses[0] = runner.losses(self.divergence.states_of(batch.ids, batch.ids.device), batch)
        return 0


def of_dense(losses: CandidateLosses) -> CandidateLosses:
    """Return what measures the dense model with the least work; `losses` themselves where nothing is kept of it."""
    if not isinstance(losses.criterion, Divergence):
        return losses
    size = losses.forward_size if isinstance(losses, ExactLosses) else losses.batch_size
    common = losses.model, losses.stack, losses.windows, size
    return DenseLosses(*common, ranks=losses.ranks, criterion=losses.criterion, divergence=losses.criterion)
