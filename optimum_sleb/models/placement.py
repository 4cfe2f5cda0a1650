"""Choice of the device of a search: the whole model is on it, or its blocks are brought there one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedModel

from ..blocks import packed
from ..blocks.offload import offloaded
from ..blocks.precision import computes_in_float32
from ..blocks.stack import DecoderStack
from ..config import SLEBConfig
from ..errors import ConfigError, UnsupportedModelError
from ..runtime.memory import ran_out_of_memory, too_large, weight_bytes
from ..runtime.ranks import Ranks
from .loading import load_without_weights

Offload = Literal["auto", "cpu", "no"]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Placement:
    """The device of a search."""

    compute_on: torch.device | None = None  # blocks are brought here; None: the model computes on its own device
    reason: str | None = None  # why blocks are brought, for the report


def choose_placement(
    model: PreTrainedModel, config: SLEBConfig, device: str | torch.device | None, offload: Offload, ranks: Ranks
) -> Placement:
    """Choose the device of a search, and move the model there if it fits.
    `device=None` is the model's own device, or the GPU with `offload="cpu"`. If the model is too large for the device
    of one process, all processes bring the blocks to their devices one at a time.
    """
    if offload not in get_args(Offload):
        raise ConfigError(f"offload must be one of {', '.join(get_args(Offload))}; got {offload!r}.")
    target = _device(device, model.device, offload)
    on_target = model.device == target and target != _CPU and offload != "cpu"
    if model.device != _CPU and not on_target:
        raise ConfigError(
            f"The model lies on {model.device}, and its blocks can be brought to {target} only from the memory of the "
            "host; load it there (no device_map, or device_map='cpu')."
        )
    reason = "asked for (offload='cpu')" if offload == "cpu" else None
    if offload == "auto" and not on_target:
        reason = too_large(weight_bytes(model, search_dtype(target, config)), target)
    if ranks.largest(int(reason is not None)) and reason is None:
        reason = "the model does not fit the device of another process"
    if reason is None:
        _move(model, target)
        return Placement()
    if on_target:
        raise ConfigError(f"The model lies on {target}, but {reason}; load it in host memory in all (no device_map).")
    if config.search == "reference":
        raise ConfigError(
            f"search='reference' runs the whole model for every candidate, for which {target} would have to hold it, "
            f"but {reason}; use search='exact', which measures the same losses."
        )
    if packed.packed_modules(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} is quantised, and packed weights cannot be brought to {target} one block at a "
            "time; load it on the device (device_map='cuda'), or without quantization_config."
        )
    return Placement(target, reason)


@contextmanager
def stack_on_device(model: PreTrainedModel, stack: DecoderStack, placement: Placement) -> Iterator[DecoderStack]:
    """Yield the stack; with `compute_on`, it is one that brings its blocks to that device."""
    if placement.compute_on is None:
        yield stack
        return
    with offloaded(model, stack, placement.compute_on) as moving_stack:
        yield moving_stack


def device_to_load_on(name_or_path: str, config: SLEBConfig, offload: Offload, **kwargs: Any) -> str:
    """Return the device on which to load a model so that `choose_placement` can then search on `kwargs["device_map"]`.
    It is that device if the model fits, else `"cpu"`; `"auto"` stays. `kwargs` are those of `loading.load_model`.
    """
    device_map = str(kwargs["device_map"])
    if device_map == "auto":
        return device_map
    device = _device(device_map, _CPU, offload)
    if offload == "cpu":
        return "cpu"
    if offload == "no" or device == _CPU or "gguf_file" in kwargs:  # the size of a dequantised GGUF file is not known
        return device_map
    size = weight_bytes(load_without_weights(name_or_path, **kwargs), search_dtype(device, config))
    return device_map if too_large(size, device) is None else "cpu"


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device if this machine has it; raise ConfigError if not.

    >>> usable_device("cpu")
    device(type='cpu')
    """
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"There is no device {device!r}; name one such as 'cuda', 'cuda:1' or 'cpu'.") from error
    if target.type == "cpu":
        return _CPU
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r} was asked for, but PyTorch finds no GPU here; leave it out.")
    if target.type == "cuda" and (target.index is None or target.index < torch.cuda.device_count()):
        return target
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if (
        accelerator is None
        or accelerator.type != target.type
        or (target.index or 0) >= torch.accelerator.device_count()
    ):
        found = f"{torch.accelerator.device_count()} of {accelerator.type}" if accelerator else "only 'cpu'"
        raise ConfigError(f"There is no device {str(device)!r} here, but {found}; name one that there is.")
    return target


def search_dtype(device: torch.device, config: SLEBConfig) -> torch.dtype | None:
    """Return float32 if the search computes in it, or `None` for the model's own precision.

    >>> search_dtype(torch.device("cpu"), SLEBConfig(sparsity=0.1))
    torch.float32
    """
    return torch.float32 if computes_in_float32(device, config.search_dtype) else None


def _device(device: str | torch.device | None, own: torch.device, offload: Offload) -> torch.device:
    """Return the device that is asked for, a GPU with its number."""
    if device is None:
        if offload != "cpu":
            return own
        if not torch.cuda.is_available():
            raise ConfigError(
                "offload='cpu' lets a GPU compute with a model in host memory, but there is none here; leave it out."
            )
        device = "cuda"
    target = usable_device(device)
    if str(target) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return target


def _move(model: PreTrainedModel, device: torch.device) -> None:
    if model.device == device:
        return
    try:
        model.to(device)
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        model.to(_CPU)  # a part of it was moved already
        raise ConfigError(
            f"The model does not fit {device} ({error}); leave its blocks in host memory (offload='cpu')."
        ) from error
