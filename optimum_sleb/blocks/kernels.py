"""Functions by which a search calls blocks and the loss after the last block: as they are, or compiled."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .losses import MAX_COMPILED_LOGITS, MAX_LOGITS, kl_of_positions, nll_sums, sums_of_positions


class _LogitsMaker(Protocol):
    """Any maker of logits from a final hidden state: a `BlockRunner`."""

    def logits(self, hidden: Tensor, ids: Tensor) -> Tensor: ...


def call_block(block: nn.Module, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one decoder block on a hidden state of shape (batch, length, width) and return its whole output."""
    return block(hidden, *args, **kwargs)


def nll_of_final_hidden(runner: _LogitsMaker, hidden: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
    """Return the summed loss, (batch,), that norm and head make of a final hidden state (batch, positions, width)."""
    return nll_sums(runner.logits(hidden, ids), targets)


def kl_of_final_hidden(runner: _LogitsMaker, hidden: Tensor, dense: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
    """Return the summed divergence, (batch,), from the dense model's final hidden state; shapes as above."""
    # Both in one batch, because every call runs the model's own Python code. Some states have a dimension before it.
    expected, found = runner.logits(torch.cat([dense, hidden], dim=-3), torch.cat([ids, ids])).chunk(2)
    return sums_of_positions(kl_of_positions(expected, found), targets)


@dataclass(frozen=True)
class Kernels:
    """Functions that a `BlockRunner` calls."""

    # Runs one block, as `call_block` does.
    block: Callable[[nn.Module, Tensor, tuple[Any, ...], dict[str, Any]], Any] = call_block
    # Makes the loss of a final hidden state, as `nll_of_final_hidden` does.
    nll: Callable[[_LogitsMaker, Tensor, Tensor, Tensor], Tensor] = nll_of_final_hidden
    # Makes the divergence from the dense model, as `kl_of_final_hidden` does.
    kl: Callable[[_LogitsMaker, Tensor, Tensor, Tensor, Tensor], Tensor] = kl_of_final_hidden
    max_logits: int = MAX_LOGITS  # elements of the logits that a loss may hold at a time


UNCOMPILED = Kernels()


def compiled_kernels(batch_size: int, length: int, *, blocks: bool, loss: bool) -> Kernels:
    """Return kernels that `torch.compile` fuses at their first call, once per kind of block, for one shape of batch.

    Batches of another shape (say, the last of a data set) run uncompiled: compiling for them takes longer.
    """
    # On an H100, norms, rotary embeddings, gates and residuals take a quarter of a block's time, and the
    # cross-entropy takes half of the head's. Fusing saves their passes through memory.
    return Kernels(
        block=_compiled(call_block, lambda shape: shape == (batch_size, length)) if blocks else call_block,
        nll=_compiled(nll_of_final_hidden, lambda shape: shape[0] == batch_size) if loss else nll_of_final_hidden,
        kl=_compiled(kl_of_final_hidden, lambda shape: shape[0] == batch_size) if loss else kl_of_final_hidden,
        max_logits=MAX_COMPILED_LOGITS if loss else MAX_LOGITS,
    )


def _compiled(function: Callable[..., Any], is_for: Callable[[tuple[int, ...]], bool]) -> Callable[..., Any]:
    """Return a function that is compiled for some shapes (batch, length) of the hidden state, its second argument."""
    fused = torch.compile(function, dynamic=False)

    @wraps(function)
    def call(owner: Any, hidden: Tensor, *rest: Any) -> Any:
        # The hidden state may have another dimension before the batch (Gemma 3n keeps four predictions).
        return (fused if is_for(tuple(hidden.shape[-3:-1])) else function)(owner, hidden, *rest)

    return call
