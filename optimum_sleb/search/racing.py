"""Racing: a candidate is dropped before all windows are measured, once it is clearly worse than the leader."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .candidate_losses import CandidateLosses, StepLosses

# Windows between two comparisons of the candidates.
CHUNK = 4
# Windows before the first comparison of a search: more, since the spread of the differences is not known yet.
_FIRST_LOOK = 8
# With fewer degrees of freedom the spread is too uncertain.
_LEAST_FREEDOM = _FIRST_LOOK - 1


# After each chunk of windows, a candidate is dropped if its loss is above the leader's by more than `confidence`
# standard errors of their difference. Differences are taken window by window: the difficulty of a window is common to
# both and cancels. Every candidate that is never dropped is compared with the winner on all windows.
@dataclass
class Race:
    """Measure the candidates of a step by racing them over the windows in a shuffled order (`seed`)."""

    losses: CandidateLosses
    confidence: float  # in standard errors
    seed: int
    # Losses of earlier steps, (blocks, windows) each; NaN where nothing was measured.
    _history: list[Tensor] = field(default_factory=list, init=False)

    def measure(self, alive: Sequence[int], candidates: Sequence[int]) -> StepLosses:
        """Return the losses of the candidates that were not dropped, and after how many windows the others were."""
        windows = self.losses.windows
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(self.seed))
        num_blocks = len(self._history[0]) if self._history else alive[-1] + 1
        losses = torch.full((num_blocks, len(windows)), torch.nan)
        racing = list(candidates)
        dropped: dict[int, int] = {}
        seen = 0
        while seen < len(windows):
            chunk = order[seen : self._next_look(seen, len(racing))].sort().values
            measured = self.losses.measure(alive, racing, windows.select(chunk.tolist()))
            losses[torch.tensor(racing)[:, None], chunk] = measured.matrix
            seen += len(chunk)
            for block in self._behind(racing, losses[:, order[:seen]]) if seen < len(windows) else ():
                dropped[block] = seen
                racing.remove(block)
                self.losses.on_progress(len(windows) - seen)  # skipped work counts as done
        self._history.append(losses)
        return StepLosses({block: losses[block] for block in racing}, dropped)

    def _next_look(self, seen: int, racing: int) -> int:
        if racing == 1:  # no competitor is left; the remaining windows are measured for the loss curve
            return len(self.losses.windows)
        chunk = max(CHUNK, self.losses.batch_size * self.losses.ranks.size)
        return seen + chunk if seen or self._history else max(chunk, _FIRST_LOOK)

    def _behind(self, racing: list[int], seen: Tensor) -> list[int]:
        """Return the candidates that are clearly worse than the leader, from losses (blocks, windows seen so far)."""
        rows = torch.tensor(racing)
        losses = seen[rows].double()
        leader = int(losses.sum(dim=1).nan_to_num(torch.inf).argmin())
        behind = (losses - losses[leader]).mean(dim=1)
        # The spread of a difference over the windows changes little from step to step, so earlier steps add to it.
        squares, freedom = _spread(losses[None] - losses[None, leader])
        if self._history:
            earlier = torch.stack(self._history)[:, rows].double()
            before = _spread(earlier - earlier[:, leader, None])
            squares, freedom = squares + before[0], freedom + before[1]
        # Finite population correction: the sum over all windows decides, so the error is 0 once all are seen.
        num_seen, num_windows = seen.shape[1], len(self.losses.windows)
        error = (squares / freedom / num_seen * (1 - num_seen / num_windows)).sqrt()
        # A candidate with a NaN or infinite loss has no difference; it is kept, and reported as non-finite at the end.
        gone = (behind > self.confidence * error) & behind.isfinite() & (freedom >= _LEAST_FREEDOM)
        return [block for block, leaves in zip(racing, gone.tolist(), strict=True) if leaves]


def _spread(differences: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared deviations and degrees of freedom, (candidates,) each, from (steps, candidates, windows)."""
    known = differences.isfinite()
    count = known.sum(dim=2)
    differences = differences.where(known, 0)
    mean = differences.sum(dim=2) / count.clamp(min=1)
    squares = ((differences - mean[:, :, None]).where(known, 0) ** 2).sum(dim=2)
    return squares.sum(dim=0), (count - 1).clamp(min=0).sum(dim=0)
