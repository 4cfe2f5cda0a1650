"""Racing: a candidate is dropped before all windows are measured, once it is clearly worse than the leader."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..calibration.windows import TokenWindows
from .candidate_losses import CandidateLosses, Stack, StepLosses

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
    # Losses of earlier steps of Algorithm 1, (blocks, windows) each; NaN where nothing was measured.
    _history: list[Tensor] = field(default_factory=list, init=False)

    def measure(self, alive: Sequence[int], candidates: Sequence[int]) -> StepLosses:
        """Return the losses of the candidates that were not dropped, and after how many windows the others were."""
        num_blocks = len(self._history[0]) if self._history else alive[-1] + 1
        losses = torch.full((num_blocks, len(self.losses.windows)), torch.nan)
        raced = self._race(
            candidates, lambda racing, windows: self.losses.measure(alive, racing, windows), losses, self._history
        )
        self._history.append(losses)
        return raced

    def measure_stacks(self, stacks: Sequence[Stack], num_kept: int) -> StepLosses:
        """Return the losses of the stacks, by place, that were not dropped: of `num_kept` at least. A stack is dropped
        if it is clearly worse than the last of those that lead."""
        losses = torch.full((len(stacks), len(self.losses.windows)), torch.nan)
        return self._race(
            range(len(stacks)),
            lambda racing, windows: self.losses.measure_stacks([stacks[row] for row in racing], windows, racing),
            losses,
            num_kept=num_kept,
        )

    def _race(
        self,
        rows: Sequence[int],
        measure: Callable[[Sequence[int], TokenWindows], StepLosses],
        losses: Tensor,  # (rows, windows), NaN; it is filled in
        history: Sequence[Tensor] = (),  # losses of the same rows in earlier steps
        num_kept: int = 1,
    ) -> StepLosses:
        windows = self.losses.windows
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(self.seed))
        racing = list(rows)
        dropped: dict[int, int] = {}
        seen = 0
        while seen < len(windows):
            look = self._next_look(seen, bool(history)) if len(racing) > num_kept else len(windows)
            chunk = order[seen:look].sort().values
            measured = measure(racing, windows.select(chunk.tolist()))
            losses[torch.tensor(racing)[:, None], chunk] = measured.matrix
            seen += len(chunk)
            for row in self._behind(racing, losses[:, order[:seen]], history, num_kept) if seen < len(windows) else ():
                dropped[row] = seen
                racing.remove(row)
                self.losses.on_progress(len(windows) - seen)  # skipped work counts as done
        return StepLosses({row: losses[row] for row in racing}, dropped)

    def _next_look(self, seen: int, has_history: bool) -> int:
        # Several processes look as often as one does, unless some of them would have no window.
        chunk = max(CHUNK, self.losses.batch_size, self.losses.ranks.size)
        return seen + chunk if seen or has_history else max(chunk, _FIRST_LOOK)

    def _behind(self, racing: list[int], seen: Tensor, history: Sequence[Tensor], num_kept: int) -> list[int]:
        """Return the candidates that are clearly worse than the last leader, from losses (rows, windows seen)."""
        if len(racing) <= num_kept:
            return []
        rows = torch.tensor(racing)
        losses = seen[rows].double()
        ranked = losses.sum(dim=1).nan_to_num(torch.inf).sort(stable=True).indices
        leader = int(ranked[num_kept - 1])
        behind = (losses - losses[leader]).mean(dim=1)
        # The spread of a difference over the windows changes little from step to step, so earlier steps add to it.
        squares, freedom = _spread(losses[None] - losses[None, leader])
        if history:
            earlier = torch.stack(list(history))[:, rows].double()
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
