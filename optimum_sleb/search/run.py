"""A search from a model and token windows to the removals in order: Algorithm 1, with what a recipe adds to it."""

import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..blocks import verify
from ..blocks.criterion import CROSS_ENTROPY, Criterion, metric_of, value_of
from ..blocks.devices import devices_of, hooks_of
from ..blocks.precision import computes_in_float32, computing_in_float32
from ..blocks.shortening import only_num_blocks_changes
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..compensation.compensator import Compensator
from ..config import SLEBConfig, num_asked_for
from ..errors import NonFiniteLossError, UnsupportedModelError
from ..models.goals import Goal
from ..report.records import SearchRecord
from ..runtime.logs import hides_bars
from ..runtime.ranks import Ranks
from . import compensating, float16
from .budget import is_within_budget
from .candidate_losses import CandidateLosses
from .compensating import Compensated, open_compensator
from .cost import exact_block_passes
from .following import Followers
from .greedy import Refusals, Step, greedy_removals
from .journal import Journal
from .method import SearchMethod, choose_method
from .result import SearchResult


@dataclass
class Search:
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
        started = time.perf_counter()
        for step in islice(self._steps(), limit):
            self.followers.measured(step)
            compensated = self._compensate({*self.result.removed, step.block}, when=("during", "every-block"))
            if not self._is_within_budget(step.loss if compensated is None else compensated.loss):
                break
            self._count_exact_passes(step)
            self.result = self.result.after(step, time.perf_counter() - started, compensated, self._record())
            started = time.perf_counter()
            self._show(step, compensated)
            yield self.result
            if self.goal is not None and self.goal.is_met(self.result.removed):
                break
            if self.followers.ask_to_stop() and len(self.result.steps) != limit:
                self.stopped_early = True
                self.result = replace(self.result, record=self._record())
                break
        if self.result.steps and (compensated := self._compensate(self.result.removed, when=("after",))):
            self.result = self.result.compensated_at_last(compensated)
            self.followers.compensated(self._value(compensated.loss))
            yield self.result
        self.followers.end(early=self.stopped_early)

    def _steps(self) -> Iterator[Step]:
        return greedy_removals(
            self.method.measure, self.num_blocks, candidates=self.candidates, refusals=self.refusals
        )

    def _compensate(self, removed: Collection[int], when: Collection[str]) -> Compensated | None:
        if self.compensator is None or self.config.compensate not in when:
            return None
        return compensating.compensate(self.compensator, self.method.losses, removed)

    def _is_within_budget(self, loss: float) -> bool:
        num_tokens, is_first = self.method.losses.windows.num_counted, not self.result.steps
        return is_within_budget(self.config, loss, self.loss_before, num_tokens, is_first=is_first)

    def _count_exact_passes(self, step: Step) -> None:
        tried = sorted({*step.losses, *step.dropped, *step.non_finite})
        self.exact_passes += exact_block_passes(self.remaining, tried) * len(self.method.losses.windows)

    @property
    def remaining(self) -> list[int]:
        """Return the blocks that are left, ascending."""
        return [block for block in range(self.num_blocks) if block not in self.result.removed]

    def _record(self) -> SearchRecord:
        return replace(record_of(self.method, self.loss_before, self.exact_passes), stopped_early=self.stopped_early)

    def _value(self, loss: float) -> float:
        losses = self.method.losses
        counts = {"num_windows": len(losses.windows), "num_counted": losses.windows.num_counted}
        return value_of(losses.criterion.name, loss, **counts)

    def _show(self, step: Step, compensated: Compensated | None) -> None:
        value, metric = self._value(step.loss), metric_of(self.method.losses.criterion.name)
        self.bar.set_postfix({"removed": step.block, metric: f"{value:.2f}"})
        self.followers.removed(step.block, value, None if compensated is None else self._value(compensated.loss))

    def check_enough_removed(self) -> None:
        """Raise UnsupportedModelError if no block could be removed; warn if fewer were than the recipe asks for."""
        limit, num_removed = num_asked_for(self.config, self.num_blocks), len(self.result.steps)
        # A search ends before its limit with blocks that were not refused only if no loss without them is finite.
        without_finite_loss = [
            block for block in self.remaining if block in self.candidates and block not in self.refusals.reasons
        ]
        stay = self.refusals.reasons | dict.fromkeys(without_finite_loss, "without it the loss is NaN or infinite")
        reasons = "; ".join(f"block {block}: {reason}" for block, reason in stay.items()) or "none is left"
        if self.refusals.reasons and not num_removed:
            name = type(self.method.losses.model).__name__
            raise UnsupportedModelError(f"No block of this {name} can be removed ({reasons}).")
        if self.stopped_early or not self.method.losses.ranks.is_first:
            return
        if limit is not None and num_removed < limit:
            warnings.warn(
                f"{num_removed} of the {limit} blocks asked for were removed: no other can go with them ({reasons}).",
                stacklevel=4,  # past the context manager
            )
        if self.goal is not None and not self.goal.is_met(self.result.removed):
            warnings.warn(
                f"{self.goal.record(self.result.removed).summary()}: the target is not met, and no other block can go "
                f"({reasons}).",
                stacklevel=4,
            )


@contextmanager
def open_search(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    candidates: Sequence[int],  # ascending
    config: SLEBConfig,
    criterion: Criterion = CROSS_ENTROPY,
    followers: Followers | None = None,  # `None`: only the log
    *,
    ranks: Ranks,  # processes that share the windows
    goal: Goal | None = None,  # of the recipe, if it has a target
    journal: Journal | None = None,  # what it records is not measured again
) -> Iterator[Search]:
    """Prepare a search of a model that lies where it computes, and check its result at the end; the model is left
    unchanged. Raise NonFiniteLossError if a loss is NaN or infinite before any removal or without each of the
    candidates (also if only in float16, for a model stored in float16)."""
    stored_dtype = model.dtype
    in_float32 = computes_in_float32(model.device, config.search_dtype)
    check_stored_dtype = partial(
        float16.check_float16, model, stack, windows, batch_size=config.batch_size or 1, ranks=ranks
    )
    if in_float32:
        check_stored_dtype()
    with (
        computing_in_float32(model, stack.loader) if in_float32 else nullcontext(),
        progress_bar(len(windows), len(stack), candidates, config, ranks, goal) as bar,
    ):
        method = choose_method(model, stack, windows, candidates, config, ranks, bar.update, criterion)
        loss_before = _finite_loss(method.losses)
        compensates = config.compensate != "no"
        every_block = config.compensate == "every-block"
        compensation = (
            open_compensator(method.losses, candidates, stored_dtype, every_block=every_block)
            if compensates
            else nullcontext()
        )
        with compensation as compensator:
            method.losses.journal = journal
            refusals = Refusals(partial(_why_not_together, model, stack, stored_dtype, ranks))
            result = SearchResult((), (), record_of(method, loss_before))
            followers = followers or Followers(config, ranks)
            search = Search(
                method, candidates, config, goal, refusals, compensator, loss_before, bar, followers, result
            )
            yield search
    if in_float32 and search.result.steps:
        check_stored_dtype(removed=search.result.removed, weights=search.result.weights)
    search.check_enough_removed()


def progress_bar(
    num_windows: int,
    num_blocks: int,
    candidates: Sequence[int],
    config: SLEBConfig,
    ranks: Ranks,
    goal: Goal | None = None,
) -> tqdm:
    """Return a bar over all pairs of a candidate and a window; hidden in all processes but the first.
    It has no total where the blocks that go decide how many of them do."""
    limit = num_asked_for(config, num_blocks) if goal is None else goal.depth(candidates)
    total = None if limit is None else num_windows * sum(len(candidates) - removed for removed in range(limit))
    return tqdm(total=total, desc="SLEB", unit="candidate window", disable=hides_bars() if ranks.is_first else True)


def _why_not_together(
    model: PreTrainedModel, stack: DecoderStack, stored_dtype: torch.dtype, ranks: Ranks, removed: set[int]
) -> str | None:
    """Return why a set of blocks cannot be removed together, if so; the same in all processes."""
    # If all removals are alike, those run before the search stand for this one; building the config is enough.
    alike = only_num_blocks_changes(model.config, [index for index in range(len(stack)) if index not in removed])
    return ranks.from_first(
        lambda: verify.reason_not_removable(model, stack, removed, run=not alike, stored_dtype=stored_dtype)
    )


def _finite_loss(losses: CandidateLosses) -> float:
    """Return the loss before any removal, summed over windows; raise NonFiniteLossError if it is not finite."""
    of_windows = losses.losses_of(range(len(losses.stack)))
    if not of_windows.isfinite().all():
        window = int((~of_windows.isfinite()).nonzero()[0])
        raise NonFiniteLossError(
            f"The loss of window {window} is {of_windows[window].item()} before any block is removed; if the model is "
            "in float16, load it with dtype='bfloat16' or 'float32'."
        )
    return of_windows.double().sum().item()


def record_of(method: SearchMethod, loss_before: float, exact_passes: int = 0) -> SearchRecord:
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
    )
