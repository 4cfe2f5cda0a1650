"""Whether a search compiles its blocks and its loss: only where that pays, and only where it computes the same."""

import time
from dataclasses import dataclass

from ..blocks.forward import vocab_size_of
from ..blocks.kernels import PLAIN, Kernels, compiled_kernels
from ..blocks.packed import packed_modules
from ..blocks.runner import BlockRunner
from ..blocks.spread import hooks_of
from ..blocks.stack import probe_ids
from ..config import SLEBConfig
from ..losses import same_losses
from .cost import exact_search_passes
from .exact import ExactLosses

# Measured on an H100 (benchmarks/README.md). A slower memory saves more. What a compiler takes is about the same on
# any machine.
_SECONDS_SAVED_PER_HIDDEN_ELEMENT = 6e-11
_SECONDS_SAVED_PER_LOGIT = 1e-11
_SECONDS_TO_COMPILE_BLOCKS = 6.0
_SECONDS_TO_COMPILE_LOSS = 2.0
# A race measures about so much of what the exact search does.
_SHARE_OF_A_RACE = 1 / 6


@dataclass(frozen=True)
class Compilation:
    """What was compiled.

    Attributes:
        kernels: How blocks and loss are called.
        summary: What was compiled, or why nothing was.
        seconds: What it took.
    """

    kernels: Kernels
    summary: str
    seconds: float | None = None


def compile_for_search(measure: ExactLosses, config: SLEBConfig) -> Compilation:
    """Compile what pays, and compare it with what it replaces.

    Args:
        measure: The search's way of measuring, with its batch size.
        config: The recipe.

    Returns:
        The kernels, and what to say about them.

    Example:
        ```python
        measure.kernels = compile_for_search(measure, config).kernels
        ```
    """
    if config.compile == "never":
        return Compilation(PLAIN, "not compiled, as the recipe says")
    if packed_modules(measure.model):
        return Compilation(PLAIN, "not compiled: packed weights have kernels of their own")
    if hooks_of(measure.model):
        return Compilation(PLAIN, "not compiled: hooks move hidden states from device to device")
    always = config.compile == "always"
    if not always and measure.model.device.type != "cuda":
        return Compilation(PLAIN, f"not compiled: it does not pay on {measure.model.device.type}")
    blocks, loss = _pays(measure, config)
    if not (always or blocks or loss):
        return Compilation(PLAIN, "not compiled: the search is too short for it to pay")
    blocks, loss = blocks or always, loss or always
    started = time.perf_counter()
    kernels = compiled_kernels(measure.forward_size, len(measure.windows.windows[0]), blocks=blocks, loss=loss)
    trouble = _trouble(measure, kernels)
    seconds = time.perf_counter() - started
    if trouble is not None:
        return Compilation(PLAIN, f"not compiled: {trouble}", seconds)
    parts = " and ".join(name for name, wanted in (("blocks", blocks), ("loss", loss)) if wanted)
    return Compilation(kernels, f"compiled {parts}", seconds)


def _pays(measure: ExactLosses, config: SLEBConfig) -> tuple[bool, bool]:
    """Whether compiling the blocks, and the loss, saves more time than it takes."""
    with BlockRunner(measure.model, measure.stack) as runner:
        width = runner.enter(probe_ids(measure.model)).hidden.shape[-1]
    num_blocks = len(measure.stack)
    # A quality budget allows an unknown number of steps, but one at least.
    num_removals = config.num_blocks_to_remove_of(num_blocks) or 1
    passes = exact_search_passes(num_blocks, num_removals, config.early_barrier, config.latter_barrier)
    tokens = measure.windows.num_tokens * (_SHARE_OF_A_RACE if config.search == "racing" else 1)
    hidden, logits = passes[0] * tokens * width, passes[1] * tokens * vocab_size_of(measure.model)
    return (
        hidden * _SECONDS_SAVED_PER_HIDDEN_ELEMENT > _SECONDS_TO_COMPILE_BLOCKS,
        logits * _SECONDS_SAVED_PER_LOGIT > _SECONDS_TO_COMPILE_LOSS,
    )


def _trouble(measure: ExactLosses, kernels: Kernels) -> str | None:
    """What is wrong with compiled kernels, if anything: they must give the losses of the model as it is."""
    size = measure.forward_size
    windows = measure.windows.select(range(size))
    alive = range(len(measure.stack))
    plain = ExactLosses(measure.model, measure.stack, windows, size)
    fused = ExactLosses(measure.model, measure.stack, windows, size, kernels=kernels)
    try:
        losses = fused.losses_with(alive)
    except Exception as error:
        # A compiler's own errors, on code of a family or on a machine without a C compiler. Memory that runs out is
        # one of them here: the search goes on without compiled code, in smaller batches where it must.
        return f"the compiler fails ({' '.join(str(error).split())[:200]})"
    same = same_losses(losses, plain.losses_with(alive), measure.model.dtype)
    return None if same else "it would compute other losses"
