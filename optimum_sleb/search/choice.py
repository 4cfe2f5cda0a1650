"""Which way of measuring a search uses: the fast one where it is proven equal on this model, else the reference."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from ..blocks.forward import reason_of
from ..blocks.kernels import PLAIN
from ..blocks.offload import running_whole
from ..blocks.stack import DecoderStack, probe_ids
from ..calibration.windows import TokenWindows
from ..config import SLEBConfig
from ..losses import same_losses
from ..ranks import Ranks
from .batch_size import choose_batch_size, fit_layerwise
from .compilation import Compilation, compile_for_search
from .exact import ExactLosses
from .greedy import MeasureCandidates
from .layerwise import LayerwiseLosses
from .measurement import Measurement
from .racing import CHUNK, Race
from .reference import ReferenceLosses


@dataclass(frozen=True)
class SearchMethod:
    """The chosen way of measuring.

    Attributes:
        step: Measures the candidates of a step.
        measure: Counts the passes.
        name: `"exact"`, `"racing"` or `"reference"`.
        reason: Why this one.
        compilation: What was compiled for it.
    """

    step: MeasureCandidates
    measure: Measurement
    name: str
    reason: str
    compilation: Compilation


def choose_method(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    candidates: Sequence[int],
    config: SLEBConfig,
    on_progress: Callable[[int], object],
    ranks: Ranks | None = None,
) -> SearchMethod:
    """Try the exact search on a short window against plain skipping, and take it if the losses agree.

    Args:
        model: The model.
        stack: Its decoder blocks.
        windows: The calibration windows.
        candidates: Candidates of the first step, ascending.
        config: The recipe; it may ask for the reference, or for a race.
        on_progress: Called with the number of (candidate, window) pairs that were just measured.
        ranks: The processes that measure together; `None` is this one alone.

    Returns:
        The method. Where the fast one is asked for and does not agree, a warning says so.

    Raises:
        OutOfMemoryError: If not even one window at a time fits.

    Example:
        ```python
        method = choose_method(model, stack, windows, range(1, 29), config, progress.update)
        ```
    """
    ranks = ranks or Ranks(together=False)
    if stack.loader is not None:
        size = config.batch_size or 1
        layerwise = LayerwiseLosses(model, stack, windows, size, on_progress, ranks=ranks, windows_at_a_time=size)
        if config.batch_size is None:
            fit_layerwise(layerwise, candidates, CHUNK if config.search == "racing" else None)
        compilation = compile_for_search(layerwise, config)
        layerwise.kernels = compilation.kernels
        return _method(layerwise, config, "blocks are brought to the device one at a time", compilation)
    difference = "asked for by the recipe" if config.search == "reference" else None
    if difference is None:
        difference = ranks.from_first(lambda: difference_of_exact(model, stack, candidates))
        if difference is not None and ranks.is_first:
            warnings.warn(
                f"The fast search (search={config.search!r}) cannot measure this {type(model).__name__}, so the whole "
                f"model runs for every candidate, which takes longer: {difference}; to have it so without this "
                "warning, use search='reference'.",
                stacklevel=2,
            )
    if difference is not None:
        # One window at a time is the published procedure.
        reference = ReferenceLosses(model, stack, windows, config.batch_size or 1, on_progress, ranks=ranks)
        compilation = Compilation(PLAIN, "not compiled: the reference runs the model as it is")
        return _method(reference, config, difference, compilation)
    exact = ExactLosses(model, stack, windows, config.batch_size or 1, on_progress, ranks=ranks)
    if config.batch_size is None:
        exact.batch_size = choose_batch_size(exact, candidates[-1], CHUNK if config.search == "racing" else None)
    compilation = compile_for_search(exact, config)
    exact.kernels = compilation.kernels
    return _method(exact, config, "the exact search agrees with plain skipping on a short window", compilation)


def _method(measure: Measurement, config: SLEBConfig, reason: str, compilation: Compilation) -> SearchMethod:
    if config.search == "racing":
        race = Race(measure, config.racing_confidence, config.seed)
        return SearchMethod(race.step, measure, "racing", reason, compilation)
    name = "exact" if isinstance(measure, ExactLosses) else "reference"
    return SearchMethod(measure.step, measure, name, reason, compilation)


def difference_of_exact(model: PreTrainedModel, stack: DecoderStack, candidates: Sequence[int]) -> str | None:
    """How running blocks one by one differs from plain skipping on this model, if it does.

    Args:
        model: The model.
        stack: Its decoder blocks.
        candidates: Blocks that may be removed, ascending.

    Returns:
        The difference, in words, or `None`.

    Raises:
        OutOfMemoryError: If memory ran out, which says nothing about the model.
        RuntimeError: If the device itself failed, which says nothing about the model either.

    Example:
        ```python
        difference_of_exact(model, stack, range(1, 29))  # None
        ```
    """
    # The last candidate too: it is measured after the others, so it would show a hidden state that a block had
    # changed in place, or something that one block leaves behind for another.
    tried = sorted({candidates[0], candidates[len(candidates) // 2], candidates[-1]})
    probe = TokenWindows.from_rows([probe_ids(model)[0].cpu()])
    alive = range(len(stack))
    with running_whole(stack):
        plain = ReferenceLosses(model, stack, probe)(alive, tried)
    try:
        fast = ExactLosses(model, stack, probe)(alive, tried)
    except Exception as error:  # a family's own code, run block by block
        return f"the blocks of this model do not run one by one ({reason_of(error)})"
    if same_losses(fast, plain, model.dtype):
        return None
    worst = ((fast - plain).abs() / plain.abs()).max().item()
    return f"the exact search differs from plain skipping by {worst:.2g} (relative) on a short window of this model"
