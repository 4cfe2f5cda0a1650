"""Result of a search, and the records made of it for the report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from ..report.records import CompensationRecord, SearchRecord, StepRecord
from .compensating import Compensated, with_dense_numbers
from .greedy import Step


@dataclass(frozen=True)
class SearchResult:
    """Result of a search."""

    steps: tuple[Step, ...]  # blocks are indices in the model before the search
    seconds: tuple[float, ...]  # of each step
    record: SearchRecord  # how the search measured
    compensated: tuple[Compensated | None, ...] = ()  # after each step; `None`: not compensated then

    @property
    def removed(self) -> set[int]:
        """Return the indices of the removed blocks."""
        return {step.block for step in self.steps}

    def after(self, step: Step, seconds: float, compensated: Compensated | None, record: SearchRecord) -> Self:
        """Return the result with one more removal."""
        return replace(
            self,
            steps=(*self.steps, step),
            seconds=(*self.seconds, seconds),
            record=record,
            compensated=(*self.compensated, compensated),
        )

    def compensated_at_last(self, compensated: Compensated) -> Self:
        """Return the result with a compensation of all its removals."""
        return replace(self, compensated=(*self.compensated[:-1], compensated))

    @property
    def weights(self) -> dict[str, Tensor]:
        """Return the weights changed by the last compensation, by name."""
        last = self.compensated[-1] if self.compensated else None
        return {} if last is None else last.weights

    def compensation_record(self, dense_numbers: Sequence[int]) -> CompensationRecord | None:
        """Return the last compensation, if any, for the report; `dense_numbers` are by index."""
        last = self.compensated[-1] if self.compensated else None
        return None if last is None else with_dense_numbers(last.record, dense_numbers)

    def step_records(self, dense_numbers: Sequence[int]) -> tuple[StepRecord, ...]:
        """Return a report record for each removal; `dense_numbers` are by index."""
        return tuple(
            StepRecord(
                block=dense_numbers[step.block],
                candidate_losses={dense_numbers[block]: loss for block, loss in step.losses.items()},
                barred_blocks={dense_numbers[block]: reason for block, reason in step.barred.items()},
                dropped_blocks={dense_numbers[block]: windows for block, windows in step.dropped.items()},
                non_finite_blocks={dense_numbers[block]: window for block, window in step.non_finite.items()},
                seconds=seconds,
                compensated_loss=None if compensated is None else compensated.loss,
            )
            for step, seconds, compensated in zip(self.steps, self.seconds, self.compensated, strict=True)
        )
