"""Choice of the search method: the fast one if it agrees with the reference on this model, else the reference."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from ..blocks.forward import reason_of
from ..blocks.kernels import PLAIN
from ..blocks.losses import same_losses
from ..blocks.offload import running_whole
from ..blocks.stack import DecoderStack, probe_ids
from ..calibration.windows import TokenWindows
from ..config import SLEBConfig
from ..runtime.ranks import Ranks
from .batch_size import choose_batch_size, fit_layerwise
from .candidate_losses import Measurement
from .compilation import Compilation, compile_for_search
from .exact import ExactLosses
from .greedy import MeasureCandidates
from .layerwise import LayerwiseLosses
from .racing import CHUNK, Race
from .reference import ReferenceLosses


@dataclass(frozen=True)
class SearchMethod:
    """The chosen search method and the reason for it."""

    step: MeasureCandidates
    measure: Measurement  # also counts the passes
    name: str  # "exact", "racing" or "reference"
    reason: str
    compilation: Compilation


def choose_method(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    candidates: Sequence[int],
    config: SLEBConfig,
    on_progress: Callable[[int], object],  # gets the number of (candidate, window) pairs just measured
    ranks: Ranks | None = None,  # `None`: this process alone
) -> SearchMethod:
    """Choose the fast search if its losses agree with those of the reference on a short window; else the reference,
    with a warning if the recipe asked for the fast one. `candidates` are those of the first step, ascending.
    Raise OutOfMemoryError if not even one window fits."""
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
    """Describe how running blocks one by one differs from skipping them in the whole model; `None` if it does not.
    A failure of the device says nothing about the model: it raises OutOfMemoryError or RuntimeError."""
    # The last candidate is measured after the others: its loss shows whether a block changed a hidden state in place
    # or left something behind that another block reads.
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
