"""Bytes that a model caches while it generates: keys and values, latents, states, whatever its own code keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import UnsupportedModelError
from .forward import evaluating, message_or_raise

# What a model returns beside its cache.
_NOT_CACHED = ("loss", "logits", "hidden_state", "attentions")
# Experts run by one product of matrices, whose shapes do not depend on what the router chooses.
_EXPERTS = "batched_mm"


def cache_bytes(model: PreTrainedModel, num_sequences: int, length: int) -> int:
    """Return the bytes that a model caches for so many sequences of so many tokens, in its own precision.

    The model lies on the meta device: its own code runs, with its own cache, but nothing is computed, so length and
    batch can be any. Raise UnsupportedModelError where no cache can be seen, or the code needs real numbers.
    """
    ids = torch.empty(num_sequences, length, dtype=torch.long, device="meta")
    try:
        with evaluating(model), running_without_numbers(model):
            output = model(ids, use_cache=True, return_dict=True)
    except Exception as error:  # from a family's own code
        raise _unknown(model, f"it does not run without numbers ({message_or_raise(error)})") from error
    size = size_of_cache(output)
    if not size:
        raise _unknown(model, "it returns none")
    return size


@contextmanager
def running_without_numbers(model: PreTrainedModel) -> Iterator[None]:
    """Let a model on the meta device run though its code looks at numbers; its experts all run at once from now on."""
    for config in _configs_of(model.config):
        config._experts_implementation = _EXPERTS
    with _AnyNumbers():
        yield


def size_of_cache(output: Any) -> int:
    """Return the bytes of all that a model's output keeps for the next token."""
    kept = {name: value for name, value in output.items() if not any(part in name for part in _NOT_CACHED)}
    # What has less than two dimensions counts something; it does not grow with the model.
    return sum(tensor.nbytes for tensor in _tensors(kept, set()) if tensor.dim() > 1)


class _AnyNumbers(TorchDispatchMode):
    """Let code that looks at numbers run on the meta device: a number is 0, and nothing is zero in `nonzero`."""

    # Padding in front of a text, packed sequences, the tokens of an expert: no shape of a cache depends on them.
    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensor = args[0] if args else None
        if isinstance(tensor, Tensor) and tensor.is_meta:
            if function is torch.ops.aten._local_scalar_dense.default:
                return torch.zeros((), dtype=tensor.dtype).item()
            if function is torch.ops.aten.nonzero.default:
                return torch.empty(tensor.numel(), tensor.dim(), dtype=torch.long, device="meta")
        return function(*args, **(kwargs or {}))


def _configs_of(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    yield config
    for name in config.sub_configs:
        if isinstance(part := getattr(config, name, None), PreTrainedConfig):
            yield from _configs_of(part)


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Yield each tensor that a cache of any class holds once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | PreTrainedConfig | type):
        yield from _tensors(vars(value), seen)


def _unknown(model: PreTrainedModel, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"How much {type(model).__name__} caches cannot be determined: {reason}; use max_parameters, sparsity or "
        "num_blocks_to_remove instead of max_memory."
    )
