"""What a search found."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..records import CompensationRecord, SearchRecord, StepRecord
from .compensating import Compensated, name_blocks
from .greedy import Step


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        steps: The removals, in order; blocks are indices in the model as it came.
        seconds: Duration of each step.
        record: How the search measured.
        compensated: What compensating the cuts gave after each step; `None` where they were not compensated then.
    """

    steps: tuple[Step, ...]
    seconds: tuple[float, ...]
    record: SearchRecord
    compensated: tuple[Compensated | None, ...] = ()

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that compensation changed, by name."""
        last = self.compensated[-1] if self.compensated else None
        return {} if last is None else last.weights

    def compensation_record(self, names: Sequence[int]) -> CompensationRecord | None:
        """The compensation as the report tells it.

        Args:
            names: Numbers of the model's blocks in the dense model.

        Returns:
            The record; `None` where nothing was compensated.

        Example:
            ```python
            result.compensation_record(pruner.blocks)
            ```
        """
        last = self.compensated[-1] if self.compensated else None
        return None if last is None else name_blocks(last.record, names)

    def step_records(self, names: Sequence[int]) -> tuple[StepRecord, ...]:
        """The removals as the report tells them.

        Args:
            names: Numbers of the model's blocks in the dense model.

        Returns:
            A record for each removal.

        Example:
            ```python
            result.step_records(pruner.blocks)
            ```
        """
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
