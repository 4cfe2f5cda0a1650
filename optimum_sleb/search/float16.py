"""Check that a model measured in float32 also runs in float16, if it is stored in float16."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.offload import offloaded, running_whole
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..errors import NonFiniteLossError
from ..runtime.ranks import Ranks
from .reference import ReferenceLosses


# The largest float16 is 65504, which the hidden states of some models exceed on some tokens. Measured in float32, such
# a model has finite losses; saved in float16, it gives NaN. bfloat16 has the range of float32 and needs no check.
def check_float16(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    *,
    removed: Collection[int] = (),  # indices
    weights: dict[str, Tensor] | None = None,  # used instead of the model's, by name
    batch_size: int = 1,
    ranks: Ranks | None = None,  # `None`: this process alone
    compute_on: torch.device | None = None,  # blocks are brought there one at a time; `None`: the model's own device
) -> None:
    """Run the windows once in float16 if the model is stored in float16, and leave the model unchanged.
    Raise NonFiniteLossError if a loss is NaN or infinite, OutOfMemoryError if not even one window fits."""
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
    """Replace some weights of a model, by name, for a context."""
    originals = {name: model.get_parameter(name).data for name in weights}
    try:
        for name, value in weights.items():
            model.get_parameter(name).data = value.to(originals[name].device)
        yield
    finally:
        for name, original in originals.items():
            model.get_parameter(name).data = original
