"""Common interface of all ways to measure the losses of candidates."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.stack import DecoderStack
from ..calibration.batching import run_in_batches
from ..calibration.windows import TokenWindows, WindowBatch
from ..errors import NonFiniteLossError
from ..runtime.ranks import Ranks
from .journal import BatchRecord, Journal, measurement_key


@dataclass
class Measurement(ABC):
    """Measure the calibration losses of candidates, in batches, over all processes. The model is left unchanged."""

    model: PreTrainedModel
    stack: DecoderStack
    windows: TokenWindows
    batch_size: int = 1  # windows per forward pass of one process; halved if memory runs out
    on_progress: Callable[[int], object] = lambda pairs: None  # gets the (candidate, window) pairs just measured
    journal: Journal | None = None  # batches recorded there are not measured again
    ranks: Ranks = field(default_factory=lambda: Ranks(together=False))
    # Both are counted once per window.
    block_passes: int = field(default=0, init=False)
    head_passes: int = field(default=0, init=False)

    def __call__(self, alive: Sequence[int], candidates: Sequence[int], windows: TokenWindows | None = None) -> Tensor:
        """Return the loss of each window without each candidate, (candidates, windows), in nats, on the CPU.
        `alive` and `candidates` (part of it) ascend; `windows` defaults to all. Raise OutOfMemoryError if not even one
        window fits, JournalError if the journal cannot be written or does not fit this measurement."""
        windows = self.windows if windows is None else windows
        # On the device until the end, so that the host does not wait for it after every batch.
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
        """Return block passes per window and losses (candidates, batch); each process measures a share of it."""
        losses = torch.zeros(len(candidates), len(batch), device=self.model.device)
        passes = 0
        with self.ranks.all_or_none():
            share = batch.share(self.ranks.number, self.ranks.size)
            if len(share):
                mine = losses[:, self.ranks.number :: self.ranks.size]
                passes = self._measure_batch(alive, candidates, share.to(self.model.device), mine)
        return self.ranks.largest(passes), self.ranks.sum(losses)

    def _run(self, batches: list[WindowBatch], measure: Callable[[WindowBatch], None]) -> None:
        """Run batches, each split over all processes, and keep the batch size that fitted in the end."""
        fitted = run_in_batches(batches, measure, block_by_block=self.stack.loader is not None)
        if fitted is not None:
            self.batch_size = max(1, fitted // self.ranks.size)

    def losses_with(self, alive: Sequence[int]) -> Tensor:
        """Return the loss of each window, (windows,), with only the blocks `alive`, on the CPU.
        Raise OutOfMemoryError if not even one window fits."""
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
        """Measure all candidates on all windows."""
        return StepLosses.of(dict(zip(candidates, self(alive, candidates), strict=True)))

    def _missing(self, windows: TokenWindows, recorded: dict[tuple[int, int], BatchRecord]) -> list[WindowBatch]:
        """Return what is not recorded yet, in the same batches as the run that recorded the rest."""
        stops = dict(recorded.keys())
        planned: list[WindowBatch] = []

        def plan(batch: WindowBatch) -> None:
            # The earlier run recorded only part of this batch: it ran out of memory there. Halve the batch here too.
            if stops.get(batch.place.start, batch.place.stop) < batch.place.stop:
                raise torch.OutOfMemoryError
            planned.append(batch)

        self._run(list(windows.batches(self.batch_size * self.ranks.size)), plan)
        known = {number for start, stop in recorded for number in range(start, stop)}
        return [part for batch in planned for part in batch.without(known)]

    def _count(self, record: BatchRecord) -> None:
        self.block_passes += record.block_passes
        self.head_passes += record.head_passes
        self.on_progress(record.head_passes)  # one head pass per candidate and window

    @abstractmethod
    def _measure_batch(
        self, alive: Sequence[int], candidates: Sequence[int], batch: WindowBatch, losses: Tensor
    ) -> int:
        """Write the losses without each candidate into `losses` (candidates, batch); return the block passes."""

    @abstractmethod
    def _losses_of(self, alive: Sequence[int], batch: WindowBatch) -> Tensor:
        """Return the loss of each window, (batch,), with only the blocks `alive`."""


@dataclass(frozen=True)
class StepLosses:
    """Losses measured in one step."""

    losses: dict[int, Tensor]  # (windows,) without each candidate that was measured on all windows
    dropped: dict[int, int] = field(default_factory=dict)  # by a race, as clearly worse: after how many windows
    non_finite: dict[int, int] = field(default_factory=dict)  # candidates with a NaN or infinite loss: in which window

    @classmethod
    def of(cls, losses: dict[int, Tensor], dropped: dict[int, int] | None = None) -> Self:
        """Set aside the candidates with a NaN or infinite loss; their losses cannot be compared.

        >>> StepLosses.of({3: torch.ones(2), 4: torch.tensor([1.0, float("nan")])}).non_finite
        {4: 1}
        """
        non_finite = {
            block: int((~row.isfinite()).nonzero()[0]) for block, row in losses.items() if not row.isfinite().all()
        }
        finite = {block: row for block, row in losses.items() if block not in non_finite}
        return cls(finite, dropped or {}, non_finite)

    def sums(self) -> dict[int, float]:
        """Return the loss without each candidate, summed over windows, in nats.
        Raise NonFiniteLossError if no candidate has a finite loss."""
        if not self.losses:
            block, window = next(iter(self.non_finite.items()))
            raise NonFiniteLossError(
                f"The loss is NaN or infinite whichever block is removed (without block {block} in window {window}); "
                "if the model is in float16, load it with dtype='bfloat16' or 'float32'."
            )
        return {block: losses.double().sum().item() for block, losses in self.losses.items()}
