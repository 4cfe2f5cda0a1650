"""How a search calls a model's blocks and the loss behind the last of them: as they are, or compiled."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..losses import MAX_COMPILED_LOGITS, MAX_LOGITS, nll_sums


class _MakesLogits(Protocol):
    """What makes logits of a final hidden state: a `BlockRunner` on a model."""

    def logits(self, hidden: Tensor, ids: Tensor) -> Tensor: ...


def call_block(block: nn.Module, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one decoder block.

    Args:
        block: The block.
        hidden: Hidden state at its entrance, of shape (batch, length, width).
        args: Its other positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        Whatever the block returns.

    Example:
        ```python
        output = call_block(model.model.layers[3], hidden, (), arguments)
        ```
    """
    return block(hidden, *args, **kwargs)


def nll_behind_blocks(runner: _MakesLogits, hidden: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
    """The loss that a model makes of a final hidden state: norm, head and cross-entropy.

    Args:
        runner: An open runner on the model.
        hidden: Hidden state after the last block, of shape (batch, positions, width).
        ids: The token ids at these positions, of shape (batch, positions).
        targets: What they predict, of shape (batch, positions).

    Returns:
        Sums over positions, as `losses.nll_sums` makes them, of shape (batch,).

    Example:
        ```python
        nll = nll_behind_blocks(runner, hidden[:, :512], ids[:, :512], targets[:, :512])
        ```
    """
    return nll_sums(runner.logits(hidden, ids), targets)


@dataclass(frozen=True)
class Kernels:
    """What a `BlockRunner` calls.

    Attributes:
        block: Runs one block; see `call_block`.
        nll: Makes the loss of a final hidden state; see `nll_behind_blocks`.
        max_logits: Elements of the logits that `nll` may hold at a time.
    """

    block: Callable[[nn.Module, Tensor, tuple[Any, ...], dict[str, Any]], Any] = call_block
    nll: Callable[[_MakesLogits, Tensor, Tensor, Tensor], Tensor] = nll_behind_blocks
    max_logits: int = MAX_LOGITS


PLAIN = Kernels()


def compiled_kernels(batch_size: int, length: int, *, blocks: bool, loss: bool) -> Kernels:
    """Kernels that `torch.compile` fuses, once for all blocks of a kind and for one shape of batch.

    Fusing saves passes through memory: the norms, rotary embeddings, gates and residuals of a block take a quarter of
    its time on an H100, and the cross-entropy half of the head's. Batches of another shape (the last of a data set,
    say) are run as they are: to compile for them as well would take longer than they do.

    Args:
        batch_size: Windows in a batch.
        length: Tokens in a window.
        blocks: Compile the blocks.
        loss: Compile norm, head and cross-entropy.

    Returns:
        The kernels. They are compiled when they are called first.

    Example:
        ```python
        with BlockRunner(model, stack, compiled_kernels(8, 2048, blocks=True, loss=True)) as runner:
            stream = runner.run(runner.enter(ids), range(30))
        ```
    """
    return Kernels(
        block=_compiled(call_block, lambda shape: shape == (batch_size, length)) if blocks else call_block,
        nll=_compiled(nll_behind_blocks, lambda shape: shape[0] == batch_size) if loss else nll_behind_blocks,
        max_logits=MAX_COMPILED_LOGITS if loss else MAX_LOGITS,
    )


def _compiled(function: Callable[..., Any], is_for: Callable[[tuple[int, ...]], bool]) -> Callable[..., Any]:
    """A function whose second argument is a hidden state, compiled for some shapes of it."""
    fused = torch.compile(function, dynamic=False)

    @wraps(function)
    def call(owner: Any, hidden: Tensor, *rest: Any) -> Any:
        # In front of the batch there can be a dimension of the family's own (Gemma 3n keeps four predictions).
        return (fused if is_for(tuple(hidden.shape[-3:-1])) else function)(owner, hidden, *rest)

    return call
