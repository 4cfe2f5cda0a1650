"""The search over sets of blocks on a model: its beam, and the compensation of the sets that lead in the end."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..config import as_ranges, width_of_beam
from . import compensating
from .beam import beam_depths
from .compensating import Compensated
from .cost import shared_block_passes
from .search import Search


@dataclass
class SetSearch(Search):
    """A search whose depths each have their own best set, so that one depth need not contain the one before."""

    refused: dict[str, str] = field(default_factory=dict, init=False)  # sets that cannot go together, and why

    def _accepted(self) -> Iterator[None]:
        """Put the best set of one depth after the other into the result, up to the first that is over the budget."""
        for depth in beam_depths(
            self.method.measure_stacks,
            self.num_blocks,
            candidates=self.candidates,
            width=width_of_beam(self.config),
            with_runs=self.config.search_space == "runs",
            why_not=self._why_not,
        ):
            self.followers.measured_sets(depth.losses)
            if not self._is_within_budget(depth.loss):
                return
            self.exact_passes += shared_block_passes(depth.stacks) * len(self.method.losses.windows)
            self.result = self.result.at_depth(depth, time.perf_counter() - self.step_began, self._record())
            value = self._value(depth.loss)
            self._show_on_bar(as_ranges(depth.kept[0]), value)
            self.followers.removed_set(depth.kept[0], value)
            yield

    def _compensate_at_the_end(self) -> Compensated | None:
        if self.compensator is None:
            return None
        kept = self.result.depths[-1].kept
        best, held_back = compensating.compensate_best(self.compensator, self.method.losses, kept)
        self.result = self.result.compensated_set(best, held_back)
        return best

    def _why_not(self, removed: set[int]) -> str | None:
        reason = self.refusals.find_reason(removed)
        if reason is not None:
            self.refused[as_ranges(removed)] = reason
        return reason

    def _why_others_stay(self) -> dict[str, str]:
        return self.refused
