"""What every way of measuring candidates has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..batching import run_in_batches
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..errors import NonFiniteLossError
from .journal import BatchRecord, Journal, measurement_key


@dataclass
class Measurement(ABC):
    """Measures what a step of the search asks for. This is the one interface behind which all speed lives.

    Attributes:
        model: The model; it is left as it was.
        stack: Its decoder blocks.
        windows: The calibration windows.
        batch_size: Windows in one forward pass. It is halved where memory runs out.
        on_progress: Called with the number of (candidate, window) pairs that were just measured.
        journal: Where what was measured is kept; batches that it knows are not measured again.
        block_passes: Decoder blocks run so far, each on one batch of windows.
        head_passes: Final norms and heads run so far, each on one batch of windows.
    """

    model: PreTrainedModel
    stack: DecoderStack
    windows: TokenWindows
    batch_size: int = 1
    on_progress: Callable[[int], object] = lambda pairs: None
    journal: Journal | None = None
    block_passes: int = field(default=0, init=False)
    head_passes: int = field(default=0, init=False)

    def __call__(self, alive: Sequence[int], candidates: Sequence[int], windows: TokenWindows | None = None) -> Tensor:
        """Measure every candidate's removal.

        Args:
            alive: Indices of the blocks that are still there, ascending.
            candidates: Those of them whose removal is tried, ascending.
            windows: Measure on these windows instead of all.

        Returns:
            The loss of each window without each candidate, of shape (candidates, windows), on the CPU.

        Raises:
            OutOfMemoryError: If not even one window at a time fits.
        """
        windows = self.windows if windows is None else windows
        # Kept on the device until the step ends, so that the host never waits for it in between.
        losses = torch.empty(len(candidates), len(windows), device=self.model.device)

        key = measurement_key(alive, candidates, windows.fingerprint) if self.journal else ""
        recorded = self.journal.recorded(key) if self.journal else {}

        def measure(place: slice, ids: Tensor) -> None:
            batch = recorded.get((place.start, place.stop))
            if batch is not None:
                losses[:, place] = torch.tensor(batch.losses, device=losses.device)
            else:
                passes = self._measure_batch(alive, candidates, ids.to(self.model.device), losses[:, place])
                batch = BatchRecord(key, place.start, place.stop, (), passes, len(candidates))
                if self.journal:
                    self.journal.note(batch, losses[:, place])
            self.block_passes += batch.block_passes
            self.head_passes += batch.head_passes
            self.on_progress(len(candidates) * len(ids))

        self.batch_size = run_in_batches(windows, self.batch_size, measure)
        if self.journal:
            self.journal.write()
        return losses.cpu()

    def step(self, alive: Sequence[int], candidates: Sequence[int]) -> "StepLosses":
        """Measure every candidate's removal on all windows.

        Args:
            alive: Indices of the blocks that are still there, ascending.
            candidates: Those of them whose removal is tried, ascending.

        Returns:
            The losses of all of them.

        Example:
            ```python
            measure.step(alive=range(30), candidates=range(1, 29)).sums()  # {1: 105230.2, 2: 104811.9, ...}
            ```
        """
        return StepLosses.of(dict(zip(candidates, self(alive, candidates), strict=True)))

    @abstractmethod
    def _measure_batch(self, alive: Sequence[int], candidates: Sequence[int], ids: Tensor, losses: Tensor) -> int:
        """Measure every candidate's removal on one batch of windows.

        Args:
            alive: Indices of the blocks that are still there, ascending.
            candidates: Those of them whose removal is tried, ascending.
            ids: Token ids of the windows, of shape (batch, length), on the model's device.
            losses: Where the losses go, of shape (candidates, batch).

        Returns:
            The number of decoder blocks that were run.
        """


@dataclass(frozen=True)
class StepLosses:
    """What was measured in a step.

    Attributes:
        losses: The loss of each window, of shape (windows,), without each candidate that was measured on all of them.
        dropped: Candidates that were given up as surely worse, and after how many windows.
        non_finite: Candidates without which a loss is NaN or infinite, and in which window.
    """

    losses: dict[int, Tensor]
    dropped: dict[int, int] = field(default_factory=dict)
    non_finite: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, losses: dict[int, Tensor], dropped: dict[int, int] | None = None) -> Self:
        """Set aside the candidates whose losses cannot be compared.

        Args:
            losses: The loss of each window measured, of shape (windows,), without each candidate.
            dropped: Candidates that were given up, and after how many windows.

        Returns:
            What was measured.

        Example:
            >>> StepLosses.of({3: torch.ones(2), 4: torch.tensor([1.0, float("nan")])}).non_finite
            {4: 1}
        """
        non_finite = {
            block: int((~row.isfinite()).nonzero()[0]) for block, row in losses.items() if not row.isfinite().all()
        }
        finite = {block: row for block, row in losses.items() if block not in non_finite}
        return cls(finite, dropped or {}, non_finite)

    def sums(self) -> dict[int, float]:
        """The loss of the model without each candidate.

        Returns:
            Sums over windows, in nats, by candidate.

        Raises:
            NonFiniteLossError: If there is no candidate without which the loss is finite.

        Example:
            >>> StepLosses({3: torch.tensor([1.0, 2.0])}).sums()
            {3: 3.0}
        """
        if not self.losses:
            block, window = next(iter(self.non_finite.items()))
            raise NonFiniteLossError(
                f"The loss is NaN or infinite whichever block is removed (without block {block} in window {window}); "
                "if the model is in float16, load it with dtype='bfloat16' or 'float32'."
            )
        return {block: losses.double().sum().item() for block, losses in self.losses.items()}
