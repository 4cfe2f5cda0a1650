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
from ..calibration.windows import TokenWindows, WindowBatch
from ..errors import NonFiniteLossError
from ..ranks import Ranks
from .journal import BatchRecord, Journal, measurement_key


@dataclass
class Measurement(ABC):
    """Measures what a step of the search asks for. This is the one interface behind which all speed lives.

    Attributes:
        model: The model; it is left as it was.
        stack: Its decoder blocks.
        windows: The calibration windows.
        batch_size: Windows in one forward pass of one process. It is halved where memory runs out.
        on_progress: Called with the number of (candidate, window) pairs that were just measured.
        journal: Where what was measured is kept; batches that it knows are not measured again.
        ranks: The processes that measure together.
        block_passes: Decoder blocks run so far, counted once for each window.
        head_passes: Final norms and heads run so far, counted once for each window.
    """

    model: PreTrainedModel
    stack: DecoderStack
    windows: TokenWindows
    batch_size: int = 1
    on_progress: Callable[[int], object] = lambda pairs: None
    journal: Journal | None = None
    ranks: Ranks = field(default_factory=lambda: Ranks(together=False))
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
            JournalError: If the journal cannot be written, or what it holds does not fit this measurement.
        """
        windows = self.windows if windows is None else windows
        # Kept on the device until the step ends, so that the host never waits for it in between.
        losses = torch.empty(len(candidates), len(windows), device=self.model.device)
        key = measurement_key(alive, candidates, windows.fingerprint) if self.journal else ""
        shape = len(candidates), len(windows)
        recorded = self.ranks.from_first(lambda: self.journal.recorded(key, *shape) if self.journal else {})
        for record in recorded.values():
            losses[:, record.start : record.stop] = torch.tensor(record.losses, device=losses.device)
            self._count(record)

        def measure(batch: WindowBatch) -> None:
            passes, losses[:, batch.place] = self._measure_together(alive, candidates, batch)
            runs = passes * len(batch), len(candidates) * len(batch)
            record = BatchRecord(key, batch.place.start, batch.place.stop, (), *runs)
            if self.journal:
                self.journal.note(record, losses[:, batch.place])
            self._count(record)

        self._run(self._missing(windows, recorded), measure)
        if self.journal:
            self.journal.write()
        return losses.cpu()

    def _measure_together(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch
    ) -> tuple[int, Tensor]:
        """Block passes for each window, and the losses of a batch, of which every process measures a share."""
        losses = torch.zeros(len(candidates), len(batch), device=self.model.device)
        passes = 0
        with self.ranks.all_or_none():
            share = batch.share(self.ranks.number, self.ranks.size)
            if len(share):
                mine = losses[:, self.ranks.number :: self.ranks.size]
                passes = self.measure_batch(alive, candidates, share.to(self.model.device), mine)
        return self.ranks.largest(passes), self.ranks.sum(losses)

    def _run(self, batches: list[WindowBatch], measure: Callable[[WindowBatch], None]) -> None:
        """Run batches, each a batch for every process; take over the size that fitted in the end."""
        fitted = run_in_batches(batches, measure, block_by_block=self.stack.loader is not None)
        if fitted is not None:
            self.batch_size = max(1, fitted // self.ranks.size)

    def losses_with(self, alive: Sequence[int]) -> Tensor:
        """The losses of the model with some of its blocks, none of which is tried to be removed.

        Args:
            alive: Indices of the blocks that are there, ascending.

        Returns:
            The loss of each window, of shape (windows,), on the CPU.

        Raises:
            OutOfMemoryError: If not even one window at a time fits.

        Example:
            ```python
            loss_before = measure.losses_with(range(30)).sum()
            ```
        """
        losses = torch.empty(len(self.windows), device=self.model.device)

        def measure(batch: WindowBatch) -> None:
            together = torch.zeros(len(batch), device=self.model.device)
            with self.ranks.all_or_none():
                share = batch.share(self.ranks.number, self.ranks.size)
                if len(share):
                    mine = self._losses_of(alive, share.to(self.model.device))
                    together[self.ranks.number :: self.ranks.size] = mine
            losses[batch.place] = self.ranks.sum(together)

        self._run(list(self.windows.batches(self.batch_size * self.ranks.size)), measure)
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

    def _missing(self, windows: TokenWindows, recorded: dict[tuple[int, int], BatchRecord]) -> list[WindowBatch]:
        """What is still to be measured, in the batches of the run that recorded the rest."""
        stops = dict(recorded.keys())
        planned: list[WindowBatch] = []

        def plan(batch: WindowBatch) -> None:
            # Memory ran out on a batch that was measured in parts. The size that fitted then is taken over.
            if stops.get(batch.place.start, batch.place.stop) < batch.place.stop:
                raise torch.OutOfMemoryError
            planned.append(batch)

        self._run(list(windows.batches(self.batch_size * self.ranks.size)), plan)
        known = {number for start, stop in recorded for number in range(start, stop)}
        return [part for batch in planned for part in batch.without(known)]

    def _count(self, record: BatchRecord) -> None:
        self.block_passes += record.block_passes
        self.head_passes += record.head_passes
        self.on_progress(record.head_passes)  # there is a head for each candidate and window

    @abstractmethod
    def measure_batch(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch, losses: Tensor
    ) -> int:
        """Measure every candidate's removal on one batch of windows.

        Args:
            alive: Indices of the blocks that are still there, ascending.
            candidates: Those of them whose removal is tried, ascending.
            batch: The windows, on the model's device.
            losses: Where the losses go, of shape (candidates, batch).

        Returns:
            The number of decoder blocks that were run.
        """

    @abstractmethod
    def _losses_of(self, alive: Sequence[int], batch: WindowBatch) -> Tensor:
        """Measure the model with some of its blocks on one batch of windows.

        Args:
            alive: Indices of the blocks that are there, ascending.
            batch: The windows, on the model's device.

        Returns:
            The loss of each window, of shape (batch,).
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
