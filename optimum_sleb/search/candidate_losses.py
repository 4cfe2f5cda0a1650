"""The one interface behind which all speed lies: given the blocks that are left, the loss without each candidate."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.criterion import CROSS_ENTROPY, Criterion
from ..blocks.stack import DecoderStack
from ..calibration.batching import run_in_batches
from ..calibration.windows import TokenWindows, WindowBatch
from ..errors import NonFiniteLossError
from ..runtime.ranks import Ranks
from .journal import BatchRecord, Journal, measurement_key, stacks_key

Stack = tuple[int, ...]  # decoder blocks that are left, ascending

# Losses (stacks, windows) on the device, the batches that are missing in them, and what measures one of these.
_Measurement = tuple[Tensor, list[WindowBatch], Callable[[WindowBatch], None]]


@dataclass(frozen=True)
class StepLosses:
    """Losses measured in one step."""

    losses: dict[int, Tensor]  # (windows,) without each candidate that was measured on all windows
    dropped: dict[int, int] = field(default_factory=dict)  # by a race, as clearly worse: after how many windows

    @property
    def matrix(self) -> Tensor:
        """Return the losses as one tensor, (candidates, windows)."""
        return torch.stack(list(self.losses.values()))

    @property
    def non_finite(self) -> dict[int, int]:
        """Return the candidates with a NaN or infinite loss, and in which window; their sums cannot be compared.

        >>> StepLosses({3: torch.ones(2), 4: torch.tensor([1.0, float("nan")])}).non_finite
        {4: 1}
        """
        windows_of = {block: (~row.isfinite()).nonzero() for block, row in self.losses.items()}
        return {block: int(windows[0]) for block, windows in windows_of.items() if len(windows)}

    def sums(self) -> dict[int, float]:
        """Return the loss without each candidate that has a finite one, summed over windows, in nats."""
        non_finite = self.non_finite
        return {block: row.double().sum().item() for block, row in self.losses.items() if block not in non_finite}


@dataclass
class CandidateLosses(ABC):
    """Measure the calibration losses of candidates, in batches, over all processes. The model is left unchanged."""

    model: PreTrainedModel
    stack: DecoderStack
    windows: TokenWindows
    batch_size: int = 1  # windows per forward pass of one process; halved if memory runs out
    on_progress: Callable[[int], object] = lambda pairs: None  # gets the (candidate, window) pairs just measured
    journal: Journal | None = None  # batches recorded there are not measured again
    ranks: Ranks = field(default_factory=Ranks.alone)
    criterion: Criterion = CROSS_ENTROPY
    # Both are counted once per window.
    block_passes: int = field(default=0, init=False)
    head_passes: int = field(default=0, init=False)

    def measure(
        self, alive: Sequence[int], candidates: Sequence[int], windows: TokenWindows | None = None
    ) -> StepLosses:
        """Return the losses without each candidate, on the CPU; on some of the windows only, if given.
        `alive` and `candidates` (part of it) ascend. Raise OutOfMemoryError if not even one window fits, JournalError
        if the journal cannot be written or does not fit this measurement."""
        windows = self.windows if windows is None else windows
        stacks = [tuple(block for block in alive if block != candidate) for candidate in candidates]
        key = measurement_key(alive, candidates, windows.fingerprint) if self.journal else ""
        with self._measurement(stacks, windows, key) as (losses, missing, measure_batch):
            self._keep_size(run_in_batches(missing, measure_batch, self._is_loaded_by_block))
        return StepLosses(dict(zip(candidates, losses.cpu(), strict=True)))

    def measure_stacks(
        self, stacks: Sequence[Stack], windows: TokenWindows | None = None, names: Sequence[int] | None = None
    ) -> StepLosses:
        """Return the losses with only the blocks of each stack, under its place in the sequence or the given name.
        Stacks ascend, and no two are the same. Raise as `measure` does."""
        windows = self.windows if windows is None else windows
        key = stacks_key(stacks, windows.fingerprint) if self.journal else ""
        with self._measurement(stacks, windows, key) as (losses, missing, measure_batch):
            self._keep_size(run_in_batches(missing, measure_batch, self._is_loaded_by_block))
        return StepLosses(dict(zip(range(len(stacks)) if names is None else names, losses.cpu(), strict=True)))

    @contextmanager
    def _measurement(self, stacks: Sequence[Stack], windows: TokenWindows, key: str) -> Iterator[_Measurement]:
        """Yield what is recorded under `key`, and how the rest is measured; write the journal at the end."""
        # On the device until the end, so that the host does not wait for it after every batch.
        losses = torch.empty(len(stacks), len(windows), device=self.model.device)
        shape = len(stacks), len(windows)
        recorded = self.ranks.from_first(lambda: self.journal.recorded(key, *shape) if self.journal else {})
        for record in recorded.values():
            losses[:, record.start : record.stop] = torch.tensor(record.losses, device=losses.device)
            self._count(record)

        def measure_batch(batch: WindowBatch) -> None:
            of_batch, passes = torch.zeros(len(stacks), len(batch), device=losses.device), 0
            with self.ranks.fail_together():
                if len(share := batch.share(self.ranks.rank, self.ranks.size)):
                    of_share = of_batch[:, self.ranks.rank :: self.ranks.size]
                    passes = self.measure_batch(stacks, share.to(self.model.device), of_share)
            passes, losses[:, batch.span] = self.ranks.largest(passes), self.ranks.sum(of_batch)
            record = BatchRecord(key, batch.span.start, batch.span.stop, (), passes * len(batch), of_batch.numel())
            if self.journal:
                self.journal.note(record, losses[:, batch.span])
            self._count(record)

        yield losses, self._missing(windows, recorded), measure_batch
        if self.journal:
            self.journal.write()

    def losses_of(self, alive: Sequence[int]) -> Tensor:
        """Return the loss of each window, (windows,), with only the blocks `alive`, on the CPU.
        Raise OutOfMemoryError if not even one window fits."""
        losses = torch.empty(len(self.windows), device=self.model.device)

        def measure_batch(batch: WindowBatch) -> None:
            of_batch = torch.zeros(1, len(batch), device=losses.device)
            with self.ranks.fail_together():
                if len(share := batch.share(self.ranks.rank, self.ranks.size)):
                    of_share = of_batch[:, self.ranks.rank :: self.ranks.size]
                    self.measure_batch([tuple(alive)], share.to(self.model.device), of_share)
            losses[batch.span] = self.ranks.sum(of_batch)[0]

        batches = list(self.windows.batches(self.batch_size * self.ranks.size))
        self._keep_size(run_in_batches(batches, measure_batch, self._is_loaded_by_block))
        return losses.cpu()

    def _missing(self, windows: TokenWindows, recorded: dict[tuple[int, int], BatchRecord]) -> list[WindowBatch]:
        """Return what is not recorded yet, in the same batches as the run that recorded the rest."""
        stops = dict(recorded.keys())
        planned: list[WindowBatch] = []

        def plan(batch: WindowBatch) -> None:
            # The earlier run recorded only part of this batch: it ran out of memory there. Halve the batch here too.
            if stops.get(batch.span.start, batch.span.stop) < batch.span.stop:
                raise torch.OutOfMemoryError
            planned.append(batch)

        self._keep_size(run_in_batches(windows.batches(self.batch_size * self.ranks.size), plan))
        known = {number for start, stop in recorded for number in range(start, stop)}
        return [part for batch in planned for part in batch.without(known)]

    def _keep_size(self, fitted: int | None) -> None:
        """Go on with the batch size that fitted, where memory ran out."""
        if fitted is not None:
            self.batch_size = max(1, fitted // self.ranks.size)

    @property
    def _is_loaded_by_block(self) -> bool:
        return self.stack.loader is not None

    def _count(self, record: BatchRecord) -> None:
        self.block_passes += record.block_passes
        self.head_passes += record.head_passes
        self.on_progress(record.head_passes)  # one head pass per candidate and window

    @abstractmethod
    def measure_batch(self, stacks: Sequence[Stack], batch: WindowBatch, losses: Tensor) -> int:
        """Write the losses with only each stack's blocks into `losses` (stacks, batch); return the block passes."""


def check_some_finite(measured: StepLosses, names: Sequence[str] | None = None) -> None:
    """Raise NonFiniteLossError if no candidate has a finite loss; `names` are those of stacks, by place."""
    non_finite = measured.non_finite
    if len(non_finite) == len(measured.losses):
        block, window = next(iter(non_finite.items()))
        name = f"block {block}" if names is None else names[block]
        raise NonFiniteLossError(
            f"The loss is NaN or infinite whichever block is removed (without {name} in window {window}); "
            "if the model is in float16, load it with dtype='bfloat16' or 'float32'."
        )
