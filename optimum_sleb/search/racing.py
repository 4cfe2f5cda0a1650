"""Racing: candidates that are surely behind leave before all windows are measured.

The windows are visited in a shuffled order. After each chunk, a candidate leaves whose loss is above the leader's by
more than so many standard errors of their difference, window by window: what makes a window hard or easy is common to
both and cancels. Whoever is left in the end has been compared with the winner on every window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .measurement import Measurement, StepLosses

# Windows between two looks at the standings; and before the first, because a spread needs some windows to be known.
CHUNK = 4
_FIRST_LOOK = 8


@dataclass
class Race:
    """Measures a step's candidates by racing them.

    Args:
        measure: Measures candidates on given windows.
        confidence: Standard errors by which a candidate must be behind the leader to leave.
        seed: Seed of the order of the windows.

    Example:
        ```python
        race = Race(ExactLosses(model, stack, windows), confidence=5.0, seed=0)
        race.step(alive=range(30), candidates=range(1, 29)).dropped  # {13: 8, 2: 8, 17: 12, ...}
        ```
    """

    measure: Measurement
    confidence: float
    seed: int

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
        losses = torch.empty(len(candidates), len(windows))
        row_of = {block: row for row, block in enumerate(candidates)}
        racing = list(candidates)
        dropped: dict[int, int] = {}
        seen = 0
        while seen < len(windows):
            chunk = order[seen : self._next_look(seen, len(racing))].sort().values
            rows = torch.tensor([row_of[block] for block in racing])
            measured = self.measure(alive, racing, windows.select(chunk.tolist()))
            losses[rows[:, None], chunk] = measured
            seen += len(chunk)
            standing = _standing(losses[rows][:, order[:seen]], self.confidence)
            for block in [block for block, stays in zip(racing, standing.tolist(), strict=True) if not stays]:
                if seen < len(windows):
                    dropped[block] = seen
                    racing.remove(block)
                    self.measure.on_progress(len(windows) - seen)  # work that is spared counts as done
        return StepLosses.of({block: losses[row_of[block]] for block in racing}, dropped)

    def _next_look(self, seen: int, racing: int) -> int:
        if racing == 1:  # nobody is left to race against: the rest is for the loss curve
            return len(self.measure.windows)
        chunk = max(CHUNK, self.measure.batch_size)
        return max(seen + chunk, _FIRST_LOOK)


def _standing(losses: Tensor, confidence: float) -> Tensor:
    """Which candidates stay, given their losses on the windows seen so far, of shape (candidates, windows)."""
    sums = losses.double().sum(dim=1)
    leader = sums.nan_to_num(torch.inf).argmin()
    behind = (losses - losses[leader]).double()
    standard_error = behind.std(dim=1) / behind.shape[1] ** 0.5
    # Where a loss is NaN or infinite there is no difference to speak of: that candidate stays, and is told in the end.
    return ~(behind.mean(dim=1) > confidence * standard_error)
