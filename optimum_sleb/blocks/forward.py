"""Running a causal language model on plain token ids."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import OutOfMemoryError
from ..losses import nll_sums, positions_at_a_time, window_losses
from ..memory import ran_out_of_memory


def logits_of(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The logits of a batch of whole windows, without a cache.

    Args:
        model: A causal language model.
        ids: Token ids, of shape (batch, length), on any device.

    Returns:
        Logits in the model's precision, of shape (batch, length, vocabulary).

    Example:
        ```python
        next_token = logits_of(model, ids)[:, -1].argmax(-1)
        ```
    """
    # A few old architectures keep no cache at all and do not know the argument.
    parameters = inspect.signature(model.forward).parameters
    takes_use_cache = "use_cache" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return model(ids.to(model.device), **({"use_cache": False} if takes_use_cache else {})).logits


def losses_of(model: PreTrainedModel, ids: Tensor, targets: Tensor) -> Tensor:
    """The loss of each window of a batch, by one ordinary forward of the model.

    Args:
        model: The model.
        ids: Token ids, of shape (batch, length).
        targets: What each position predicts, of shape (batch, length).

    Returns:
        Losses in nats, as `window_losses` defines them, of shape (batch,), on the model's device.

    Example:
        ```python
        perplexity = (losses_of(model, ids, next_tokens(ids)).sum() / ids.numel()).exp()
        ```
    """
    logits = logits_of(model, ids)
    targets = targets.to(logits.device)
    positions = positions_at_a_time(targets, vocab_size_of(model))
    return window_losses(lambda part: nll_sums(logits[:, part], targets[:, part]), targets, positions)


def vocab_size_of(model: PreTrainedModel) -> int:
    """The number of token ids that a model knows.

    Args:
        model: A causal language model, or a composite model with one inside.

    Returns:
        The vocabulary size of its text config.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> vocab_size_of(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=40)))
        40
    """
    return model.config.get_text_config(decoder=True).vocab_size


@contextmanager
def measuring(model: PreTrainedModel) -> Iterator[None]:
    """Run a model without dropout and without gradients, and leave it as it was.

    Args:
        model: The model; every module gets its own training flag back, also after an error.

    Example:
        ```python
        with measuring(model):
            loss = search.loss(alive)
        ```
    """
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in in_training:
            module.training = True


def reason_of(error: Exception) -> str:
    """What a family's own code says about a layout that it does not allow.

    Args:
        error: What it raised.

    Returns:
        The message, in one line.

    Raises:
        OutOfMemoryError: If memory ran out, which says nothing about the family.
        RuntimeError: What it raised, where the device itself failed, which says nothing about the family either.

    Example:
        >>> reason_of(ValueError("no\\nway"))
        'no way'
    """
    if isinstance(error, OutOfMemoryError):
        raise error
    if ran_out_of_memory(error):
        raise OutOfMemoryError(
            "Memory ran out while the model was tried on a few tokens; load it in half precision, leave its blocks in "
            "host memory (offload='cpu') if they are not there yet, or use a larger device."
        ) from error
    if isinstance(error, RuntimeError) and "CUDA error: " in str(error) and "CUBLAS" not in str(error):
        raise error  # nothing runs on the device any more; cuBLAS, though, may only refuse a shape
    return " ".join(str(error).split())
