"""Compilation of blocks and loss for a search: only if it saves time and computes the same losses."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..blocks.criterion import CROSS_ENTROPY
from ..blocks.devices import hooks_of
from ..blocks.forward import vocab_size_of
from ..blocks.kernels import UNCOMPILED, Kernels, compiled_kernels
from ..blocks.losses import same_losses
from ..blocks.packed import packed_modules
from ..blocks.runner import open_runner
from ..blocks.stack import probe_ids
from ..config import SLEBConfig, num_asked_for, races, width_of_beam
from .cost import exact_search_passes
from .exact import ExactLosses

# Measured on an H100 (benchmarks/README.md). With slower memory, compiling saves more. The time to compile is about
# the same on any machine.
_SECONDS_SAVED_PER_HIDDEN_ELEMENT = 6e-11
_SECONDS_SAVED_PER_LOGIT = 1e-11
_SECONDS_TO_COMPILE_BLOCKS = 6.0
_SECONDS_TO_COMPILE_LOSS = 2.0
# Share of the exact search's measurements that a race needs, about.
_SHARE_OF_A_RACE = 1 / 6


@dataclass(frozen=True)
class Compilation:
    """Result of `compile_for_search`."""

    kernels: Kernels
    summary: str  # what was compiled, or why nothing was
    seconds: float | None = None  # `None`: nothing was tried


def compile_for_search(losses: ExactLosses, config: SLEBConfig, candidates: Sequence[int]) -> Compilation:
    """Compile what saves time, and use it only if it gives the same losses. `losses` must have its batch size."""
    if config.compile == "never":
        return Compilation(UNCOMPILED, "not compiled, as the recipe says")
    if packed_modules(losses.model):
        return Compilation(UNCOMPILED, "not compiled: packed weights have kernels of their own")
    if hooks_of(losses.model):
        return Compilation(UNCOMPILED, "not compiled: hooks move hidden states from device to device")
    always = config.compile == "always"
    if not always and losses.model.device.type != "cuda":
        return Compilation(UNCOMPILED, f"not compiled: it does not pay on {losses.model.device.type}")
    blocks, loss = _pays(losses, config, candidates)
    if not (always or blocks or loss):
        return Compilation(UNCOMPILED, "not compiled: the search is too short for it to pay")
    blocks, loss = blocks or always, losses.criterion.is_fused and (loss or always)
    started = time.perf_counter()
    kernels = compiled_kernels(losses.forward_size, len(losses.windows.windows[0]), blocks=blocks, loss=loss)
    trouble = _trouble(losses, kernels, candidates[0])
    seconds = time.perf_counter() - started
    if trouble is not None:
        return Compilation(UNCOMPILED, f"not compiled: {trouble}", seconds)
    parts = " and ".join(name for name, is_compiled in (("blocks", blocks), ("loss", loss)) if is_compiled)
    return Compilation(kernels, f"compiled {parts}", seconds)


def _pays(losses: ExactLosses, config: SLEBConfig, candidates: Sequence[int]) -> tuple[bool, bool]:
    """Tell whether compiling saves more time than it takes: for the blocks, and for the loss."""
    with open_runner(losses.model, losses.stack) as runner:
        width = runner.start(probe_ids(losses.model)).hidden.shape[-1]
    num_blocks = len(losses.stack)
    # A quality budget or a target allows an unknown number of steps, but one at least.
    passes = exact_search_passes(num_blocks, num_asked_for(config, num_blocks) or 1, candidates)
    # A depth of a search over sets is worth that many steps of a greedy one.
    num_steps = width_of_beam(config) + (config.search_space == "runs")
    tokens = num_steps * losses.windows.num_tokens * (_SHARE_OF_A_RACE if races(config, len(losses.windows)) else 1)
    hidden, logits = passes[0] * tokens * width, passes[1] * tokens * vocab_size_of(losses.model)
    return (
        hidden * _SECONDS_SAVED_PER_HIDDEN_ELEMENT > _SECONDS_TO_COMPILE_BLOCKS,
        losses.criterion.is_fused and logits * _SECONDS_SAVED_PER_LOGIT > _SECONDS_TO_COMPILE_LOSS,
    )


def _trouble(losses: ExactLosses, kernels: Kernels, candidate: int) -> str | None:
    """Describe why compiled kernels cannot be used: they fail, or give other losses; `None` if they can."""
    size = losses.forward_size
    windows = losses.windows.select(range(size))
    # Without one block, because the dense model's divergence from itself is 0, of which no share can be compared.
    alive = [block for block in range(len(losses.stack)) if block != candidate]
    criterion = losses.criterion
    plain = ExactLosses(losses.model, losses.stack, windows, size, criterion=criterion)
    fused = ExactLosses(losses.model, losses.stack, windows, size, criterion=criterion, kernels=kernels)
    try:
        of_compiled = fused.losses_of(alive)
    except Exception as error:
        # Compilers raise errors of many classes, for example without a C compiler. OutOfMemoryError is caught too: the
        # search goes on without compiled code, and in smaller batches if needed.
        return f"the compiler fails ({' '.join(str(error).split())[:200]})"
    # A divergence is the difference of two losses, whose rounding is a share of the loss.
    loss = 0 if criterion is CROSS_ENTROPY else ExactLosses(losses.model, losses.stack, windows, size).losses_of(alive)
    same = same_losses(of_compiled + loss, plain.losses_of(alive) + loss, losses.model.dtype)
    return None if same else "it would compute other losses"
