"""Where a search computes: where the model lies, or on a device that it is brought to, whole or block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedModel

from .blocks import packed
from .blocks.offload import offloaded
from .blocks.precision import computes_in_float32
from .blocks.stack import DecoderStack
from .config import SLEBConfig
from .errors import ConfigError, UnsupportedModelError
from .loading import empty_model
from .memory import ran_out_of_memory, too_large, weight_bytes
from .ranks import Ranks

Offload = Literal["auto", "cpu", "no"]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Placement:
    """Where a search computes.

    Attributes:
        compute_on: The device to which blocks are brought one at a time; `None` where the model computes where it
            lies.
        reason: Why they are.
    """

    compute_on: torch.device | None = None
    reason: str | None = None


def place(
    model: PreTrainedModel, config: SLEBConfig, device: str | torch.device | None, offload: Offload, ranks: Ranks
) -> Placement:
    """Decide where a search computes. A model that fits the device is moved there.

    Args:
        model: The model.
        config: The recipe, whose precision counts.
        device: The device; `None` is where the model lies, or with `offload="cpu"` the GPU.
        offload: `"cpu"` leaves the blocks in host memory and brings them to the device one at a time; `"no"` moves
            the whole model there; `"auto"` does that where the model fits.
        ranks: The processes that search together. If the model is too large for the device of one, it is for all.

    Returns:
        The placement.

    Raises:
        ConfigError: If `offload` is none of the three, the device is unknown, the model lies on another device, or
            the recipe asks for the search as published, block by block.
        UnsupportedModelError: If the blocks of this model cannot be brought to a device.

    Example:
        ```python
        place(model, config, "cuda", "auto", Ranks(together=False)).reason
        ```
    """
    if offload not in get_args(Offload):
        raise ConfigError(f"offload must be one of {', '.join(get_args(Offload))}; got {offload!r}.")
    here, there = model.device, _device(device, model.device, offload)
    lies_there = here == there and here != _CPU and offload != "cpu"
    if here != _CPU and not lies_there:
        raise ConfigError(
            f"The model lies on {here}, and its blocks can be brought to {there} only from the memory of the host; "
            "load it there (no device_map, or device_map='cpu')."
        )
    reason = "asked for (offload='cpu')" if offload == "cpu" else None
    if offload == "auto" and not lies_there:
        reason = too_large(weight_bytes(model, search_dtype(there, config)), there)
    if ranks.largest(int(reason is not None)) and reason is None:
        reason = "the model does not fit the device of another process"
    if reason is None:
        _move(model, there)
        return Placement()
    if lies_there:
        raise ConfigError(f"The model lies on {here}, but {reason}; load it in host memory in all (no device_map).")
    if config.search == "reference":
        raise ConfigError(
            f"search='reference' runs the whole model for every candidate, for which {there} would have to hold it, "
            f"but {reason}; use search='exact', which measures the same losses."
        )
    if packed.packed_modules(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} is quantised, and packed weights cannot be brought to {there} one block at a "
            "time; load it on the device (device_map='cuda'), or without quantization_config."
        )
    return Placement(there, reason)


@contextmanager
def placed(model: PreTrainedModel, stack: DecoderStack, placement: Placement) -> Iterator[DecoderStack]:
    """Compute where a placement says.

    Args:
        model: The model.
        stack: Its decoder blocks.
        placement: The placement.

    Yields:
        The stack, which brings its blocks to the device if that is the placement.

    Example:
        ```python
        with placed(model, stack, placement) as stack:
            candidates, barred = removable_blocks(model, stack, range(1, 39))
        ```
    """
    if placement.compute_on is None:
        yield stack
        return
    with offloaded(model, stack, placement.compute_on) as there:
        yield there


def where_to_load(name_or_path: str, config: SLEBConfig, offload: Offload, **kwargs: Any) -> str:
    """The device on which a model is best loaded, so that `place` then searches on the one that is asked for.

    Args:
        name_or_path: A model on the Hub or a local folder.
        config: The recipe.
        offload: See `place`.
        **kwargs: The arguments of `loading.load_model`, with `device_map`, the device that is asked for.

    Returns:
        That device where it will hold the model, `"cpu"` where not; `"auto"` where the model is to be spread.

    Raises:
        ModelNotFoundError: If there is no model there.
        UnsupportedModelError: If it is not a causal language model.

    Example:
        ```python
        where_to_load("meta-llama/Llama-2-13b-hf", config, "auto", dtype="auto", device_map="cuda")  # "cpu" for 24 GB
        ```
    """
    wanted = str(kwargs["device_map"])
    if wanted == "auto":
        return wanted
    device = _device(wanted, _CPU, offload)
    if offload == "cpu":
        return "cpu"
    if offload == "no" or device == _CPU or "gguf_file" in kwargs:  # how large a GGUF file becomes is not known
        return wanted
    size = weight_bytes(empty_model(name_or_path, **kwargs), search_dtype(device, config))
    return wanted if too_large(size, device) is None else "cpu"


def search_dtype(device: torch.device, config: SLEBConfig) -> torch.dtype | None:
    """The precision of a search, where it is not the model's own.

    Args:
        device: The device that computes.
        config: The recipe.

    Returns:
        The precision, or `None`.

    Example:
        >>> search_dtype(torch.device("cpu"), SLEBConfig(sparsity=0.1))
        torch.float32
    """
    return torch.float32 if computes_in_float32(device, config.search_dtype) else None


def _device(device: str | torch.device | None, here: torch.device, offload: Offload) -> torch.device:
    """The device that is asked for, with its number."""
    if device is None:
        if offload != "cpu":
            return here
        if not torch.cuda.is_available():
            raise ConfigError(
                "offload='cpu' lets a GPU compute with a model in host memory, but there is none here; leave it out."
            )
        device = "cuda"
    try:
        there = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"There is no device {device!r}; name one such as 'cuda', 'cuda:1' or 'cpu'.") from error
    if there.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r} was asked for, but PyTorch finds no GPU here; leave it out.")
    if str(there) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return there


def _move(model: PreTrainedModel, device: torch.device) -> None:
    if model.device == device:
        return
    try:
        model.to(device)
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        model.to(_CPU)  # what was moved already goes back
        raise ConfigError(
            f"The model does not fit {device} ({error}); leave its blocks in host memory (offload='cpu')."
        ) from error
