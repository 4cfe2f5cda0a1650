"""A search on a model, with what a recipe adds: compensation, budgets, targets, callbacks, a bar."""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Generic, TypeVar

from tqdm.auto import tqdm

from ..blocks.criterion import metric_of, value_of
from ..blocks.devices import devices_of, hooks_of
from ..compensation.compensator import Compensator
from ..config import SLEBConfig, num_asked_for
from ..errors import UnsupportedModelError
from ..models.goals import Goal
from ..report.records import SearchRecord
from .budget import is_within_budget
from .compensating import Compensated
from .following import Followers
from .greedy import Refusals
from .method import SearchMethod
from .perplexity import perplexity_without
from .result import SearchResult

Found = TypeVar("Found")  # what is decided at once: a step, or a depth


@dataclass
class Search(ABC, Generic[Found]):
    """A search that is ready to run: how candidates are measured, which may go, and what follows a removal."""

    method: SearchMethod
    candidates: Sequence[int]  # blocks that may go, ascending
    config: SLEBConfig
    goal: Goal | None  # the search ends where it is met
    refusals: Refusals
    compensator: Compensator | None
    loss_before: float  # summed over windows, in nats
    bar: tqdm
    followers: Followers
    result: SearchResult
    exact_passes: int = field(default=0, init=False)  # those of an exact search with the same removals
    stopped_early: bool = field(default=False, init=False)  # by a callback
    step_began: float = field(default=0.0, init=False)

    @property
    def num_blocks(self) -> int:
        """Return the number of blocks before the search."""
        return len(self.method.losses.stack)

    def removals(self) -> Iterator[SearchResult]:
        """Yield the result so far after every removal, and once more if all removals are compensated at the end."""
        limit = num_asked_for(self.config, self.num_blocks)
        depth = limit if self.goal is None else self.goal.depth(self.candidates)
        metric = metric_of(self.method.losses.criterion.name)
        self.followers.begin(self.num_blocks, len(self.candidates), depth, metric, self._value(self.loss_before))
        self.step_began = time.perf_counter()
        for found in islice(self._search(), limit):
            if not self._accept(found):
                break
            yield self.result
            self.step_began = time.perf_counter()
            if self.goal is not None and self.goal.is_met(self.result.removed):
                break
            if self.followers.ask_to_stop() and len(self.result.removed) != limit:
                self.stopped_early = True
                self.result = replace(self.result, record=self._record())
                break
        compensated = self._compensate_at_the_end() if self.result.removed else None
        self._measure_perplexity_after()
        if compensated is not None:
            self.followers.compensated(self._value(compensated.loss), self.result.best_set)
            yield self.result
        self.followers.end(early=self.stopped_early)

    @abstractmethod
    def _search(self) -> Iterator[Found]:
        """Return what is decided, one after the other."""

    @abstractmethod
    def _accept(self, found: Found) -> bool:
        """Put it into the result, and return whether that could be done: it may be over the budget, or nothing."""

    @abstractmethod
    def _compensate_at_the_end(self) -> Compensated | None:
        """Put the compensation of all removals into the result, and return it, if the recipe asks for it now."""

    @abstractmethod
    def _why_others_stay(self) -> dict[str, str]:
        """Return why blocks that were candidates are left, by their names."""

    @property
    @abstractmethod
    def _no_more(self) -> str:
        """Return that a search ended because nothing else can go, as the end of a sentence."""

    def _measure_perplexity_after(self) -> None:
        if self.compensator is not None:
            self.compensator.put(self.result.weights)
        perplexity = perplexity_without(self.method.losses, self.result.removed)
        self.result = replace(self.result, record=replace(self.result.record, perplexity_after=perplexity))

    def _is_within_budget(self, loss: float) -> bool:
        num_tokens, is_first = self.method.losses.windows.num_counted, not self.result.removed
        return is_within_budget(self.config, loss, self.loss_before, num_tokens, is_first=is_first)

    def _record(self) -> SearchRecord:
        before = self.result.record.perplexity_before
        return record_of(self.method, self.loss_before, before, self.exact_passes, stopped_early=self.stopped_early)

    def _value(self, loss: float) -> float:
        losses = self.method.losses
        counts = {"num_windows": len(losses.windows), "num_counted": losses.windows.num_counted}
        return value_of(losses.criterion.name, loss, **counts)

    def _show_on_bar(self, removed: int | str, value: float) -> None:
        name = self.method.losses.criterion.name
        self.bar.set_postfix({"removed": removed, metric_of(name): f"{value:.2f}" if name is None else f"{value:.4g}"})

    def check_enough_removed(self) -> None:
        """Raise UnsupportedModelError if no block could be removed; warn if fewer were than the recipe asks for."""
        limit, num_removed = num_asked_for(self.config, self.num_blocks), len(self.result.removed)
        stay = self._why_others_stay()
        reasons = "; ".join(f"{name}: {reason}" for name, reason in stay.items()) or "none is left"
        if stay and not num_removed:
            name = type(self.method.losses.model).__name__
            raise UnsupportedModelError(f"No block of this {name} can be removed ({reasons}).")
        if self.stopped_early or not self.method.losses.ranks.is_first:
            return
        if limit is not None and num_removed < limit:
            warnings.warn(
                f"{num_removed} of the {limit} blocks asked for were removed: {self._no_more} ({reasons}).",
                stacklevel=4,  # past the context manager
            )
        if self.goal is not None and not self.goal.is_met(self.result.removed):
            warnings.warn(
                f"{self.goal.record(self.result.removed).summary()}: the target is not met, and {self._no_more} "
                f"({reasons}).",
                stacklevel=4,
            )


def record_of(
    method: SearchMethod,
    loss_before: float,
    perplexity_before: float | None,
    exact_passes: int = 0,
    *,
    stopped_early: bool = False,
) -> SearchRecord:
    """Return how a search measured, for the report; `exact_passes` count only for a race."""
    losses, model = method.losses, method.losses.model
    return SearchRecord(
        method=method.name,
        reason=method.reason,
        dtype=str(model.dtype).removeprefix("torch."),
        device=", ".join(map(str, devices_of(model))) if hooks_of(model) else str(model.device),
        block_passes=losses.block_passes,
        loss_before=loss_before,
        exact_block_passes=exact_passes if method.name == "racing" and exact_passes else None,
        batch_size=losses.batch_size,
        compilation=method.compilation.summary,
        compile_seconds=method.compilation.seconds,
        processes=losses.ranks.size,
        criterion=losses.criterion.name,
        stopped_early=stopped_early,
        perplexity_before=perplexity_before,
    )
