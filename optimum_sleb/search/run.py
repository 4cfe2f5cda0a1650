"""Opening of a search: from a model, token windows and a recipe to what yields the removals."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..blocks import verify
from ..blocks.comparison import Comparison
from ..blocks.criterion import CROSS_ENTROPY, Criterion
from ..blocks.precision import computes_in_float32, computing_in_float32
from ..blocks.shortening import only_num_blocks_changes
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..config import SLEBConfig, num_asked_for, searches_sets
from ..errors import NonFiniteLossError
from ..models.goals import Goal
from ..runtime.logs import hides_bars
from ..runtime.ranks import Ranks
from . import float16
from .candidate_losses import CandidateLosses
from .compensating import open_compensator
from .dense_losses import of_dense
from .following import Followers
from .greedy import Refusals
from .greedy_search import GreedySearch
from .journal import Journal
from .method import choose_method
from .perplexity import perplexity_without
from .result import SearchResult
from .search import record_of
from .set_search import SetSearch


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
) -> Iterator[SetSearch | GreedySearch]:
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
            comparison = Comparison(model, stack, stored_dtype)
            refusals = Refusals(partial(_why_not_together, model, stack, stored_dtype, comparison, ranks))
            perplexity_before = perplexity_without(method.losses, ())
            result = SearchResult((), (), record_of(method, loss_before, perplexity_before))
            followers = followers or Followers(config, ranks)
            kind = SetSearch if searches_sets(config) else GreedySearch
            search = kind(method, candidates, config, goal, refusals, compensator, loss_before, bar, followers, result)
            yield search
    if in_float32 and search.result.removed:
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
    It has no total where the blocks that go decide how many of them do, or which sets are measured."""
    limit = num_asked_for(config, num_blocks) if goal is None else goal.depth(candidates)
    total = (
        None
        if limit is None or searches_sets(config)
        else num_windows * sum(len(candidates) - removed for removed in range(limit))
    )
    return tqdm(total=total, desc="SLEB", unit="candidate window", disable=hides_bars() if ranks.is_first else True)


def _why_not_together(
    model: PreTrainedModel,
    stack: DecoderStack,
    stored_dtype: torch.dtype,
    comparison: Comparison,
    ranks: Ranks,
    removed: set[int],
) -> str | None:
    """Return why a set of blocks cannot be removed together, if so; the same in all processes."""
    # If all removals are alike, those run before the search stand for this one; building the config is enough.
    alike = only_num_blocks_changes(model.config, [index for index in range(len(stack)) if index not in removed])
    return ranks.from_first(
        lambda: verify.reason_not_removable(
            model, stack, removed, run=not alike, comparison=comparison, stored_dtype=stored_dtype
        )
    )


def _finite_loss(losses: CandidateLosses) -> float:
    """Return the loss before any removal, summed over windows; raise NonFiniteLossError if it is not finite."""
    of_windows = of_dense(losses).losses_of(range(len(losses.stack)))
    if not of_windows.isfinite().all():
        window = int((~of_windows.isfinite()).nonzero()[0])
        raise NonFiniteLossError(
            f"The loss of window {window} is {of_windows[window].item()} before any block is removed; if the model is "
            "in float16, load it with dtype='bfloat16' or 'float32'."
        )
    return of_windows.double().sum().item()
