"""Racing: candidates that are surely behind leave before all windows are measured.

The windows are visited in a shuffled order. After each chunk, a candidate leaves whose loss is above the leader's by
more than so many standard errors of their difference, window by window: what makes a window hard or easy is common to
both and cancels. Whoever is left in the end has been compared with the winner on every window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .measurement import Measurement, StepLosses

# Windows between two looks at the standings.
CHUNK = 4
# Before the first look of a search more are measured: nothing is known yet of how far differences spread.
_FIRST_LOOK = 8
# Fewer degrees of freedom say too little of a spread.
_LEAST_FREEDOM = _FIRST_LOOK - 1


@dataclass
class Race:
    """Measures a step's candidates by racing them.

    Args:
        measure: Measures candidates on given windows.
        confidence: Standard errors by which a candidate must be behind the leader to leave.
        seed: Seed of the order of the windows.

    Example:
        ```python
        race = Race(ExactLosses(model, stack, windows), confidence=3.5, seed=0)
        race.step(alive=range(30), candidates=range(1, 29)).dropped  # {13: 8, 2: 8, 17: 12, ...}
        ```
    """

    measure: Measurement
    confidence: float
    seed: int
    # The losses of earlier steps, of shape (blocks, windows); NaN where nothing was measured.
    _history: list[Tensor] = field(default_factory=list, init=False)

    def step(self, alive: Sequence[int], candidates: Sequence[int]) -> StepLosses:
        """Race the candidates of a step.

        Args:
            alive: Indices of the blocks that are still there, ascending.
            candidates: Those of them whose removal is tried, ascending.

        Returns:
            The losses of those that stayed to the end, and after how many windows each of the others left.

        Example:
            ```python
            race.step(alive=range(30), candidates=range(1, 29)).losses.keys()  # those that stayed to the end
            ```
        """
        windows = self.measure.windows
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(self.seed))
        num_blocks = len(self._history[0]) if self._history else alive[-1] + 1
        losses = torch.full((num_blocks, len(windows)), torch.nan)
        racing = list(candidates)
        dropped: dict[int, int] = {}
        seen = 0
        while seen < len(windows):
            chunk = order[seen : self._next_look(seen, len(racing))].sort().values
            losses[torch.tensor(racing)[:, None], chunk] = self.measure(alive, racing, windows.select(chunk.tolist()))
            seen += len(chunk)
            for block in self._behind(racing, losses[:, order[:seen]]) if seen < len(windows) else ():
                dropped[block] = seen
                racing.remove(block)
                self.measure.on_progress(len(windows) - seen)  # work that is spared counts as done
        self._history.append(losses)
        return StepLosses.of({block: losses[block] for block in racing}, dropped)

    def _next_look(self, seen: int, racing: int) -> int:
        if racing == 1:  # nobody is left to race against: the rest is for the loss curve
            return len(self.measure.windows)
        chunk = max(CHUNK, self.measure.batch_size * self.measure.ranks.size)
        return seen + chunk if seen or self._history else max(chunk, _FIRST_LOOK)

    def _behind(self, racing: list[int], seen: Tensor) -> list[int]:
        """Which candidates are surely behind, given the losses on the windows seen so far, (blocks, windows)."""
        rows = torch.tensor(racing)
        losses = seen[rows].double()
        leader = int(losses.sum(dim=1).nan_to_num(torch.inf).argmin())
        behind = (losses - losses[leader]).mean(dim=1)
        # How far the difference of two candidates spreads over the windows changes little from step to step.
        squares, freedom = _spread(losses[None] - losses[None, leader])
        if self._history:
            earlier = torch.stack(self._history)[:, rows].double()
            before = _spread(earlier - earlier[:, leader, None])
            squares, freedom = squares + before[0], freedom + before[1]
        # The windows are drawn from a finite number, and it is their sum that counts: the error ends with the last.
        num_seen, num_windows = seen.shape[1], len(self.measure.windows)
        error = (squares / freedom / num_seen * (1 - num_seen / num_windows)).sqrt()
        # Where a loss is NaN or infinite there is no difference to speak of: that candidate stays, and is told in the
        # end.
        gone = (behind > self.confidence * error) & behind.isfinite() & (freedom >= _LEAST_FREEDOM)
        return [block for block, leaves in zip(racing, gone.tolist(), strict=True) if leaves]


def _spread(differences: Tensor) -> tuple[Tensor, Tensor]:
    """Squared deviations and degrees of freedom of each candidate's differences, from (steps, candidates, windows)."""
    known = differences.isfinite()
    count = known.sum(dim=2)
    differences = differences.where(known, 0)
    mean = differences.sum(dim=2) / count.clamp(min=1)
    squares = ((differences - mean[:, :, None]).where(known, 0) ** 2).sum(dim=2)
    return squares.sum(dim=0), (count - 1).clamp(min=0).sum(dim=0)
