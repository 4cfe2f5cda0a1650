"""Whether a model that was measured in float32 still runs in float16, the precision that it is kept in.

The largest float16 is 65504, which the hidden states of some models pass on some tokens. Measured in float32, such a
model has finite losses; saved, it gives NaN. bfloat16 reaches as far as float32, so only float16 is looked at.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.offload import offloaded, running_whole
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..errors import NonFiniteLossError
from ..ranks import Ranks
from .reference import ReferenceLosses


def check_float16(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    *,
    removed: Collection[int] = (),
    weights: dict[str, Tensor] | None = None,
    batch_size: int = 1,
    ranks: Ranks | None = None,
    compute_on: torch.device | None = None,
) -> None:
    """Run the windows once in float16, where that is what a model is kept in. The model is left as it was.

    Args:
        model: The model, in the precision that it is kept in.
        stack: Its decoder blocks.
        windows: The calibration windows.
        removed: Indices of blocks that are skipped.
        weights: Weights that stand in for the model's, by name.
        batch_size: Windows in one forward pass, at most.
        ranks: The processes that measure together; `None` is this one alone.
        compute_on: The device to which blocks are brought one at a time; `None` is where the model lies.

    Raises:
        NonFiniteLossError: If a loss is NaN or infinite.
        OutOfMemoryError: If not even one window at a time fits.

    Example:
        ```python
        check_float16(model, stack, windows, removed={4, 5}, weights=compensated.weights)
        ```
    """
    if model.dtype != torch.float16:
        return
    alive = [block for block in range(len(stack)) if block not in removed]
    ranks = ranks or Ranks(together=False)
    there = nullcontext(stack) if compute_on is None else offloaded(model, stack, compute_on)
    with _standing_in(model, weights or {}), there as stack, running_whole(stack):
        losses = ReferenceLosses(model, stack, windows, batch_size, ranks=ranks).losses_with(alive)
    if losses.isfinite().all():
        return
    window = int((~losses.isfinite()).nonzero()[0])
    when = f"without the removed blocks ({len(removed)})" if removed else "before any block is removed"
    raise NonFiniteLossError(
        f"The loss of window {window} is {losses[window].item()} {when} in float16, in which the model is kept (the "
        "search computes in float32, which reaches further); load it with dtype='bfloat16' or 'float32'."
    )


@contextmanager
def _standing_in(model: PreTrainedModel, weights: dict[str, Tensor]) -> Iterator[None]:
    """Let a model compute with some other weights for a while."""
    originals = {name: model.get_parameter(name).data for name in weights}
    try:
        for name, value in weights.items():
            model.get_parameter(name).data = value.to(originals[name].device)
        yield
    finally:
        for name, original in originals.items():
            model.get_parameter(name).data = original
