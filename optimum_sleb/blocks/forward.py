"""Forward passes of a causal language model on token ids."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import OutOfMemoryError
from ..runtime.memory import ran_out_of_memory
from ..runtime.undo import undoing
from .losses import nll_sums, position_slices, window_losses


def logits_of(model: PreTrainedModel, ids: Tensor, **more: Tensor) -> Tensor:
    """Return the logits of token ids (batch, length), as (batch, length, vocabulary), computed without a cache.
    `more` are other inputs of the model, such as `position_ids`."""
    # A few old architectures keep no cache at all and do not know the argument.
    parameters = inspect.signature(model.forward).parameters
    takes_use_cache = "use_cache" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    inputs = {name: tensor.to(model.device) for name, tensor in more.items()}
    return model(ids.to(model.device), **inputs, **({"use_cache": False} if takes_use_cache else {})).logits


def same_logits(logits: Tensor, expected: Tensor) -> bool:
    """Tell whether two sets of logits agree up to the rounding of their precision, also across devices."""
    try:
        torch.testing.assert_close(logits, expected.to(logits.device), equal_nan=True)
    except AssertionError:
        return False
    return True


def losses_of(model: PreTrainedModel, ids: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each token window in nats, (batch,), by one forward; both inputs are (batch, length)."""
    logits = logits_of(model, ids)
    targets = targets.to(logits.device)
    parts = position_slices(targets, vocab_size_of(model))
    sums = (nll_sums(logits[:, part], targets[:, part]) for part in parts)
    return window_losses(reduce(torch.add, sums), targets)


def vocab_size_of(model: PreTrainedModel) -> int:
    """Return the vocabulary size of a model's text config, also for a composite model."""
    return model.config.get_text_config(decoder=True).vocab_size


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Run a model without dropout and gradients; every module gets its own training flag back afterwards."""
    in_training, with_gradients = [module for module in model.modules() if module.training], torch.is_grad_enabled()

    def restore() -> None:
        torch.set_grad_enabled(with_gradients)
        for module in in_training:
            module.training = True

    with undoing(restore):
        torch.set_grad_enabled(False)
        model.eval()
        yield


def message_or_raise(error: Exception) -> str:
    r"""Return what an error from a family's own code says, in one line.

    >>> message_or_raise(ValueError("no\nway"))
    'no way'
    """
    # Memory that runs out, or a device that fails, says nothing about the family: raise instead.
    if isinstance(error, OutOfMemoryError):
        raise error
    if ran_out_of_memory(error):
        raise OutOfMemoryError(
            "Memory ran out while the model was tried on a few tokens; load it in half precision, leave its blocks in "
            "host memory (offload='cpu') if they are not there yet, or use a larger device."
        ) from error
    if isinstance(error, RuntimeError) and "CUDA error: " in str(error) and "CUBLAS" not in str(error):
        raise error  # the device is unusable now; an error of cuBLAS may only mean that it refuses a shape
    return " ".join(str(error).split())
