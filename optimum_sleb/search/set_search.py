"""The search over sets of blocks on a model: its beam, and the compensation of the sets that lead in the end."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from ..config import as_ranges, width_of_beam
from . import compensating
from .beam import Depth, beam_depths, name_of
from .compensating import Compensated
from .cost import shared_block_passes
from .search import Search

_MOST_TOLD = 3  # sets that cannot go; there may be hundreds


@dataclass
class SetSearch(Search[Depth]):
    """A search whose depths each have their own best set, so that one depth need not contain the one before."""

    stay: dict[str, str] = field(default_factory=dict, init=False)  # sets of a size none of which can go, and why

    def _search(self) -> Iterator[Depth]:
        return beam_depths(
            self.method.measure_stacks,
            self.num_blocks,
            candidates=self.candidates,
            width=width_of_beam(self.config),
            with_runs=self.config.search_space == "runs",
            why_not=self.refusals.find_reason,
        )

    def _accept(self, found: Depth) -> bool:
        """Put the best set of a depth into the result, unless it is over the budget or there is none."""
        if not found.kept:
            self.stay = self._why_none_goes(found)
            return False
        self.followers.measured_sets(found.losses)
        if not self._is_within_budget(found.loss):
            return False
        self.exact_passes += shared_block_passes(found.stacks) * len(self.method.losses.windows)
        self.result = self.result.at_depth(found, time.perf_counter() - self.step_began, self._record())
        value = self._value(found.loss)
        self._show_on_bar(as_ranges(found.kept[0]), value)
        self.followers.removed_set(found.kept[0], value)
        return True

    def _compensate_at_the_end(self) -> Compensated | None:
        if self.compensator is None:
            return None
        kept = self.result.depths[-1].kept
        if self.goal is not None:  # one that does not meet it may be better for that alone
            kept = tuple(one for one in kept if self.goal.is_met(one)) or kept
        best, held_back = compensating.compensate_best(self.compensator, self.method.losses, kept)
        self.result = self.result.compensated_set(best, held_back)
        return best

    def _why_none_goes(self, depth: Depth) -> dict[str, str]:
        reasons = depth.refused | dict.fromkeys(depth.non_finite, "without them the loss is NaN or infinite")
        names = {name_of([*map(self.followers.number_of, one)]): why for one, why in reasons.items()}
        few = dict(islice(names.items(), _MOST_TOLD))
        more = len(names) - len(few)
        return few | ({"and others": f"{more:,} sets more"} if more else {})

    def _why_others_stay(self) -> dict[str, str]:
        return self.stay

    @property
    def _no_more(self) -> str:
        return f"no {len(self.result.removed) + 1} can go together"
