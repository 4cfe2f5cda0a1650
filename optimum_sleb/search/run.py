"""A whole search: from a model and token windows to the order of removal."""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..blocks import gates
from ..blocks.offload import offloaded
from ..blocks.precision import computes_in_float32, computing_in_float32
from ..blocks.shortening import only_number_changes
from ..blocks.spread import devices_of, hooks_of
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..config import SLEBConfig
from ..errors import NonFiniteLossError, UnsupportedModelError
from ..ranks import Ranks
from ..records import SearchRecord
from ..units import perplexity_of
from . import compensating, kept_precision
from .budget import budget_of
from .choice import SearchMethod, choose_method, difference_of_exact
from .compensating import Compensated, open_compensator
from .cost import exact_block_passes
from .greedy import Step, greedy_search
from .journal import Journal
from .measurement import Measurement
from .result import SearchResult


def run_search(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    candidates: Sequence[int],
    config: SLEBConfig,
    *,
    journal: Journal | None = None,
    on_step: Callable[[SearchResult], object] = lambda result: None,
    ranks: Ranks | None = None,
    compute_on: torch.device | None = None,
) -> SearchResult:
    """Search for the blocks that go. The model is left as it was.

    Args:
        model: The model.
        stack: Its decoder blocks.
        windows: The calibration windows.
        candidates: Indices of the blocks that may go, ascending.
        config: The recipe.
        journal: Where progress is kept; what it knows is not measured again.
        on_step: Called after every removal with the result so far.
        ranks: The processes that search together, each on its share of the windows; `None` is this one alone.
        compute_on: The device that computes, where the model lies in the memory of the host because it is too large
            for it; blocks are brought there one at a time. Not for the search as published (`placement.place`).

    Returns:
        The removals and how they were measured.

    Raises:
        NonFiniteLossError: If the loss is NaN or infinite before any removal, or whichever block is removed; also
            where it is so only in float16, if that is what the model is kept in.
        ConfigError: If no block can be removed within the recipe's perplexity budget.
        OutOfMemoryError: If not even one window at a time fits.
        UnsupportedModelError: If the cuts of this model cannot be compensated as the recipe asks, its blocks cannot
            be brought to the device one at a time, or the first step finds that none of them can be removed.
        CalibrationError: If there are too few windows to compensate.
        JournalError: If the journal cannot be written.
        RankError: If another of the processes failed.

    Example:
        ```python
        result = run_search(model, stack, windows, range(1, 29), SLEBConfig(num_blocks_to_remove=6))
        print([step.block for step in result.steps])  # [5, 4, 26, 3, 25, 6]
        ```
    """
    ranks = ranks or Ranks(together=False)
    limit = config.num_blocks_to_remove_of(len(stack))
    total = None if limit is None else len(windows) * sum(len(candidates) - removed for removed in range(limit))
    kept_in = model.dtype
    in_float32 = computes_in_float32(compute_on or model.device, config.search_dtype)
    precision = computing_in_float32(model) if in_float32 else nullcontext()
    refused: dict[int, str] = {}
    check_kept_precision = partial(
        kept_precision.check_float16,
        model,
        stack,
        windows,
        batch_size=config.batch_size or 1,
        ranks=ranks,
        compute_on=compute_on,
    )
    if in_float32:
        check_kept_precision()
    with ExitStack() as resources:
        resources.enter_context(precision)
        if compute_on is not None:
            stack = resources.enter_context(offloaded(model, stack, compute_on))
            ranks.from_first(lambda: _check_block_by_block(model, stack, candidates))
        hidden = None if ranks.is_first else True
        bar = resources.enter_context(tqdm(total=total, desc="SLEB", unit="candidate window", disable=hidden))
        method = choose_method(model, stack, windows, candidates, config, bar.update, ranks)
        loss_before = _finite_loss(method.measure)
        compensator = None
        if config.compensate != "no":
            compensator = resources.enter_context(open_compensator(method.measure, candidates, kept_in))
        method.measure.journal = journal
        result = SearchResult((), (), _record(model, method, loss_before))
        within_budget = budget_of(config, windows, loss_before)
        compensated: Compensated | None = None

        def accept(step: Step) -> bool:
            """Compensates the cuts, where that is done during the search, and judges what comes out."""
            nonlocal compensated
            if compensator is not None and config.compensate == "during":
                removed = {*(earlier.block for earlier in result.steps), step.block}
                compensated = compensating.compensate(compensator, method.measure, removed)
            return within_budget(step.loss if compensated is None else compensated.loss)

        search = greedy_search(
            method.step,
            len(stack),
            early_barrier=config.early_barrier,
            latter_barrier=config.latter_barrier,
            removable=candidates,
            refusal=_refusal_rule(model, stack, kept_in, refused, ranks),
            accept=accept,
        )
        exact_passes = 0
        alive = list(range(len(stack)))
        started = time.perf_counter()
        for step in islice(search, limit):
            tried = sorted({*step.losses, *step.dropped, *step.non_finite})
            exact_passes += exact_block_passes(alive, tried) * len(windows)
            alive.remove(step.block)
            result = SearchResult(
                (*result.steps, step),
                (*result.seconds, time.perf_counter() - started),
                _record(model, method, loss_before, exact_passes if method.name == "racing" else None),
                (*result.compensated, compensated),
            )
            started = time.perf_counter()
            bar.set_postfix(removed=step.block, perplexity=f"{perplexity_of(step.loss, windows.num_counted):.2f}")
            on_step(result)
        if compensator is not None and result.steps and config.compensate == "after":
            last = compensating.compensate(compensator, method.measure, {step.block for step in result.steps})
            result = replace(result, compensated=(*result.compensated[:-1], last))
            on_step(result)
    if in_float32 and result.steps:
        check_kept_precision(removed={step.block for step in result.steps}, weights=result.weights)
    left = alive[config.early_barrier : len(alive) - config.latter_barrier]
    odd = [block for block in left if block in candidates and block not in refused]
    _check_removed(model, result, limit, refused, odd, ranks)
    return result


def _check_removed(
    model: PreTrainedModel,
    result: SearchResult,
    limit: int | None,
    refused: dict[int, str],
    odd: Sequence[int],
    ranks: Ranks,
) -> None:
    """An error where no block could go, a warning where fewer could than were asked for.

    Blocks that are still there and were not refused are odd: a search ends before its limit only where the loss
    without each of them is not finite.
    """
    stay = refused | dict.fromkeys(odd, "without it the loss is NaN or infinite")
    reasons = "; ".join(f"block {block}: {reason}" for block, reason in stay.items()) or "none is left"
    if refused and not result.steps:
        raise UnsupportedModelError(f"No block of this {type(model).__name__} can be removed ({reasons}).")
    if limit is not None and len(result.steps) < limit and ranks.is_first:
        warnings.warn(
            f"{len(result.steps)} of the {limit} blocks asked for were removed: no other can go with them "
            f"({reasons}).",
            stacklevel=3,
        )


def _check_block_by_block(model: PreTrainedModel, stack: DecoderStack, candidates: Sequence[int]) -> None:
    difference = difference_of_exact(model, stack, candidates)
    if difference is not None:
        raise UnsupportedModelError(
            f"The blocks of {type(model).__name__} cannot be brought to the device one at a time: {difference}; use a "
            "device that holds the whole model."
        )


def _refusal_rule(
    model: PreTrainedModel, stack: DecoderStack, kept_in: torch.dtype, refused: dict[int, str], ranks: Ranks
) -> Callable[[set[int], int], str | None]:
    """Says why a block cannot go with those that are gone, and takes note of it."""

    def refusal_of(removed: set[int], block: int) -> str | None:
        gone = {*removed, block}
        # Where all cuts are alike, those that were run before the search stand for this one; building it is enough.
        alike = only_number_changes(model.config, [index for index in range(len(stack)) if index not in gone])
        reason = ranks.from_first(lambda: gates.refusal(model, stack, gone, run=not alike, kept_in=kept_in))
        if reason is not None:
            refused[block] = reason
        return reason

    return refusal_of


def _finite_loss(measure: Measurement) -> float:
    losses = measure.losses_with(range(len(measure.stack)))
    if not losses.isfinite().all():
        window = int((~losses.isfinite()).nonzero()[0])
        raise NonFiniteLossError(
            f"The loss of window {window} is {losses[window].item()} before any block is removed; if the model is in "
            "float16, load it with dtype='bfloat16' or 'float32'."
        )
    return losses.double().sum().item()


def _record(
    model: PreTrainedModel, method: SearchMethod, loss_before: float, exact_passes: int | None = None
) -> SearchRecord:
    return SearchRecord(
        method=method.name,
        reason=method.reason,
        dtype=str(model.dtype).removeprefix("torch."),
        device=", ".join(map(str, devices_of(model))) if hooks_of(model) else str(model.device),
        block_passes=method.measure.block_passes,
        loss_before=loss_before,
        exact_block_passes=exact_passes,
        batch_size=method.measure.batch_size,
        compilation=method.compilation.summary,
        compile_seconds=method.compilation.seconds,
        processes=method.measure.ranks.size,
    )
