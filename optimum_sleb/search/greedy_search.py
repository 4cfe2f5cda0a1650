"""Algorithm 1 on a model: one removal after the other, each compensated where the recipe asks for it."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from . import compensating
from .compensating import Compensated
from .cost import exact_block_passes
from .greedy import Step, greedy_removals
from .search import Search


@dataclass
class GreedySearch(Search[Step]):
    """A search that removes one block at a time, from the model as it is by then."""

    def _search(self) -> Iterator[Step]:
        return greedy_removals(
            self.method.measure, self.num_blocks, candidates=self.candidates, refusals=self.refusals
        )

    def _accept(self, found: Step) -> bool:
        """Put a removal into the result, unless it is over the budget."""
        self.followers.measured(found)
        compensated = self._compensate({*self.result.removed, found.block}, when=("during", "every-block"))
        if not self._is_within_budget(found.loss if compensated is None else compensated.loss):
            return False
        tried = sorted({*found.losses, *found.dropped, *found.non_finite})
        self.exact_passes += exact_block_passes(self._remaining, tried) * len(self.method.losses.windows)
        seconds = time.perf_counter() - self.step_began
        self.result = self.result.after(found, seconds, compensated, self._record())
        value = self._value(found.loss)
        self._show_on_bar(found.block, value)
        self.followers.removed(found.block, value, None if compensated is None else self._value(compensated.loss))
        return True

    def _compensate_at_the_end(self) -> Compensated | None:
        compensated = self._compensate(self.result.removed, when=("after",))
        if compensated is not None:
            self.result = self.result.compensated_at_last(compensated)
        return compensated

    def _compensate(self, removed: Collection[int], when: Collection[str]) -> Compensated | None:
        if self.compensator is None or self.config.compensate not in when:
            return None
        return compensating.compensate(self.compensator, self.method.losses, removed)

    @property
    def _remaining(self) -> list[int]:
        return [block for block in range(self.num_blocks) if block not in self.result.removed]

    def _why_others_stay(self) -> dict[str, str]:
        # A search ends before its limit with blocks that were not refused only if no loss without them is finite.
        without_finite_loss = [
            block for block in self._remaining if block in self.candidates and block not in self.refusals.reasons
        ]
        stay = self.refusals.reasons | dict.fromkeys(without_finite_loss, "without it the loss is NaN or infinite")
        return {f"block {self.followers.number_of(block)}": reason for block, reason in stay.items()}

    @property
    def _no_more(self) -> str:
        return "no other can go with them"
