"""Result of a search, and the records made of it for the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from ..config import as_ranges
from ..report.depths import DepthRecord, SetRecord
from ..report.records import CompensationRecord, SearchRecord, StepRecord
from .beam import BlockSet, Depth
from .compensating import Compensated, with_dense_numbers
from .greedy import Step


@dataclass(frozen=True)
class SearchResult:
    """Result of a search."""

    steps: tuple[Step, ...]  # blocks are indices in the model before the search
    seconds: tuple[float, ...]  # of each step
    record: SearchRecord  # how the search measured
    compensated: tuple[Compensated | None, ...] = ()  # after each step; `None`: not compensated then
    depths: tuple[Depth, ...] = ()  # of a search over sets, which has no steps
    best_set: BlockSet = ()  # of its last depth
    held_back: dict[BlockSet, float] = field(default_factory=dict)  # losses of the sets that were compensated there

    @property
    def removed(self) -> set[int]:
        """Return the indices of the removed blocks."""
        return {step.block for step in self.steps} | set(self.best_set)

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

    def at_depth(self, depth: Depth, seconds: float, record: SearchRecord) -> Self:
        """Return the result of a search over sets that went one depth further."""
        return replace(
            self, depths=(*self.depths, depth), seconds=(*self.seconds, seconds), record=record, best_set=depth.kept[0]
        )

    def compensated_set(self, best: Compensated, held_back: dict[BlockSet, float]) -> Self:
        """Return the result with the best of the sets that were compensated at the last depth."""
        return replace(
            self, compensated=(best,), best_set=min(held_back, key=held_back.__getitem__), held_back=held_back
        )

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
        if self.depths:
            return tuple(StepRecord(dense_numbers[block]) for block in self.best_set)
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

    def depth_records(self, dense_numbers: Sequence[int]) -> tuple[DepthRecord, ...]:
        """Return a report record for each depth of a search over sets; `dense_numbers` are by index."""

        def numbers(blocks: BlockSet) -> tuple[int, ...]:
            return tuple(dense_numbers[block] for block in blocks)

        records = []
        last_fit = self.compensated[-1] if self.compensated else None
        for depth, seconds in zip(self.depths, self.seconds, strict=False):
            is_last = depth is self.depths[-1]
            held_back = self.held_back if is_last else {}
            ranked = sorted((one for one in depth.losses if one not in depth.refused), key=depth.losses.__getitem__)
            records.append(
                DepthRecord(
                    removed=numbers(self.best_set if is_last else depth.kept[0]),
                    sets=tuple(SetRecord(numbers(one), depth.losses[one], held_back.get(one)) for one in ranked),
                    seconds=seconds,
                    num_dropped=depth.num_dropped,
                    num_non_finite=len(depth.non_finite),
                    refused={as_ranges(numbers(one)): reason for one, reason in depth.refused.items()},
                    compensated_loss=last_fit.loss if is_last and last_fit else None,
                )
            )
        return tuple(records)
