"""Choice of the search method: the fast one if it agrees with the reference on this model, else the reference."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from ..blocks.criterion import CROSS_ENTROPY, Criterion
from ..blocks.forward import message_or_raise
from ..blocks.kernels import UNCOMPILED
from ..blocks.losses import same_losses
from ..blocks.offload import loading_hooks
from ..blocks.stack import DecoderStack, probe_ids
from ..calibration.windows import TokenWindows
from ..config import SLEBConfig, most_sets, races
from ..errors import UnsupportedModelError
from ..runtime.ranks import Ranks
from .batch_size import choose_batch_size, fit_layerwise
from .beam import MeasureStacks
from .candidate_losses import CandidateLosses, Stack, StepLosses
from .compilation import Compilation, compile_for_search
from .exact import ExactLosses
from .greedy import MeasureCandidates
from .layerwise import LayerwiseLosses
from .racing import CHUNK, Race
from .reference import ReferenceLosses


@dataclass(frozen=True)
class SearchMethod:
    """The chosen search method and the reason for it."""

    measure: MeasureCandidates
    measure_stacks: MeasureStacks  # the same, for a search over sets
    losses: CandidateLosses  # what `measure` uses; also counts the passes
    name: str  # "exact", "racing" or "reference"
    reason: str
    compilation: Compilation


def choose_method(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    candidates: Sequence[int],
    config: SLEBConfig,
    ranks: Ranks,
    on_progress: Callable[[int], object] = lambda pairs: None,  # gets the (candidate, window) pairs just measured
    criterion: Criterion = CROSS_ENTROPY,
) -> SearchMethod:
    """Choose the fast search if its losses agree with those of the reference on a short window; else the reference,
    with a warning, or UnsupportedModelError if it cannot run because the blocks are in host memory.
    `candidates` are those of the first step, ascending. Raise OutOfMemoryError if not even one window fits."""
    # A batch of more windows than there are would never be run, so nothing must be compiled for it.
    size = min(config.batch_size or 1, -(-len(windows) // ranks.size))
    measured = (model, stack, windows, size, on_progress)
    reason = _why_reference(model, stack, candidates, config, ranks)
    # Every process runs all windows: which ones it measures depends on races, on memory that runs out and on what a
    # journal has, and the first process verifies a compensation on windows of all.
    criterion.prepare(model, stack, windows.batches(1), by_block=reason is None)
    if reason is not None:
        # One window at a time is the published procedure.
        reference = ReferenceLosses(*measured, ranks=ranks, criterion=criterion)
        compilation = Compilation(UNCOMPILED, "not compiled: the reference runs the model as it is")
        return _method(reference, config, reason, compilation)
    chunk = CHUNK if races(config, len(windows)) else None
    if stack.loader is not None:
        reason = "blocks are brought to the device one at a time"
        layerwise = LayerwiseLosses(*measured, ranks=ranks, criterion=criterion, windows_at_a_time=size)
        if config.batch_size is None:
            fit_layerwise(layerwise, candidates[-1], most_sets(config, len(candidates)), chunk)
        exact: ExactLosses = layerwise
    else:
        reason = "the exact search agrees with plain skipping on a short window"
        exact = ExactLosses(*measured, ranks=ranks, criterion=criterion)
        if config.batch_size is None:
            exact.batch_size = choose_batch_size(exact, candidates[-1], chunk)
    compilation = compile_for_search(exact, config, candidates)
    exact.kernels = compilation.kernels
    return _method(exact, config, reason, compilation)


def _why_reference(
    model: PreTrainedModel, stack: DecoderStack, candidates: Sequence[int], config: SLEBConfig, ranks: Ranks
) -> str | None:
    """Return why the whole model must run for every candidate, if so; warn where the recipe asks for the fast way."""
    if config.search == "reference" and stack.loader is None:
        return "asked for by the recipe"
    difference = ranks.from_first(lambda: why_not_exact(model, stack, candidates))
    if difference is None:
        return None
    if stack.loader is not None:
        raise UnsupportedModelError(
            f"The blocks of {type(model).__name__} cannot be brought to the device one at a time: {difference}; use a "
            "device that holds the whole model."
        )
    if ranks.is_first:
        warnings.warn(
            f"The fast search (search={config.search!r}) cannot measure this {type(model).__name__}, so the whole "
            f"model runs for every candidate, which takes longer: {difference}; to have it so without this "
            "warning, use search='reference'.",
            stacklevel=2,
        )
    return difference


def _method(losses: CandidateLosses, config: SLEBConfig, reason: str, compilation: Compilation) -> SearchMethod:
    if races(config, len(losses.windows)):
        race = Race(losses, config.racing_confidence, config.seed)
        return SearchMethod(race.measure, race.measure_stacks, losses, "racing", reason, compilation)

    def measure_all(stacks: Sequence[Stack], num_kept: int) -> StepLosses:
        return losses.measure_stacks(stacks)

    name = "exact" if isinstance(losses, ExactLosses) else "reference"
    return SearchMethod(losses.measure, measure_all, losses, name, reason, compilation)


def why_not_exact(model: PreTrainedModel, stack: DecoderStack, candidates: Sequence[int]) -> str | None:
    """Describe how running blocks one by one differs from skipping them in the whole model; `None` if it does not.
    A failure of the device says nothing about the model: it raises OutOfMemoryError or RuntimeError."""
    # The last candidate is measured after the others: its loss shows whether a block changed a hidden state in place
    # or left something behind that another block reads.
    tried = sorted({candidates[0], candidates[len(candidates) // 2], candidates[-1]})
    probe = TokenWindows.from_rows([probe_ids(model)[0].cpu()])
    alive = range(len(stack))
    with loading_hooks(stack):
        expected = ReferenceLosses(model, stack, probe).measure(alive, tried).matrix
    try:
        losses = ExactLosses(model, stack, probe).measure(alive, tried).matrix
    except Exception as error:  # a family's own code, run block by block
        return f"the blocks of this model do not run one by one ({message_or_raise(error)})"
    if same_losses(losses, expected, model.dtype):
        return None
    worst = ((losses - expected).abs() / expected.abs()).max().item()
    return f"the exact search differs from plain skipping by {worst:.2g} (relative) on a short window of this model"
