"""Result of a search, and the records made of it for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..report.records import CompensationRecord, SearchRecord, StepRecord
from .compensating import Compensated, name_blocks
from .greedy import Step


@dataclass(frozen=True)
class SearchResult:
    """Result of a search."""

    steps: tuple[Step, ...]  # blocks are indices in the model before the search
    seconds: tuple[float, ...]  # of each step
    record: SearchRecord  # how the search measured
    compensated: tuple[Compensated | None, ...] = ()  # after each step; `None`: not compensated then

    @property
    def weights(self) -> dict[str, Tensor]:
        """Return the weights changed by the last compensation, by name."""
        last = self.compensated[-1] if self.compensated else None
        return {} if last is None else last.weights

    def compensation_record(self, names: Sequence[int]) -> CompensationRecord | None:
        """Return the last compensation, if any, for the report; `names` are the dense model's block numbers."""
        last = self.compensated[-1] if self.compensated else None
        return None if last is None else name_blocks(last.record, names)

    def step_records(self, names: Sequence[int]) -> tuple[StepRecord, ...]:
        """Return a report record for each removal; `names` are the dense model's block numbers."""
        return tuple(
            StepRecord(
                block=names[step.block],
                candidate_losses={names[block]: loss for block, loss in step.losses.items()},
                barred_blocks={names[block]: reason for block, reason in step.barred.items()},
                dropped_blocks={names[block]: windows for block, windows in step.dropped.items()},
                non_finite_blocks={names[block]: window for block, window in step.non_finite.items()},
                seconds=seconds,
                compensated_loss=None if compensated is None else compensated.loss,
            )
            for step, seconds, compensated in zip(self.steps, self.seconds, self.compensated, strict=True)
        )
