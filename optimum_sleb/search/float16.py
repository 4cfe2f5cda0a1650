"""Check that a model measured in float32 also runs in float16, if it is stored in float16."""

from collections.abc import Collection

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.offload import loading_hooks
from ..blocks.precision import replacing_data
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
    ranks: Ranks,
) -> None:
    """Run the windows once in float16 if the model is stored in float16, and leave the model unchanged.
    Raise NonFiniteLossError if a loss is NaN or infinite, OutOfMemoryError if not even one window fits."""
    if model.dtype != torch.float16:
        return
    alive = [block for block in range(len(stack)) if block not in removed]
    others = {model.get_parameter(name): value for name, value in (weights or {}).items()}
    with (
        replacing_data(others, lambda parameter: others[parameter].to(parameter.device), stack.loader),
        loading_hooks(stack),
    ):
        losses = ReferenceLosses(model, stack, windows, batch_size, ranks=ranks).losses_of(alive)
    if losses.isfinite().all():
        return
    window = int((~losses.isfinite()).nonzero()[0])
    when = f"without the removed blocks ({len(removed)})" if removed else "before any block is removed"
    raise NonFiniteLossError(
        f"The loss of window {window} is {losses[window].item()} {when} in float16, in which the model is kept (the "
        "search computes in float32, which reaches further); load it with dtype='bfloat16' or 'float32'."
    )
