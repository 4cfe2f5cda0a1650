"""Computing in a wider precision than the one a model is kept in."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Literal

import torch
from transformers import PreTrainedModel


@contextmanager
def computing_in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Let a model in half precision compute in float32 for a while. Afterwards it is bit for bit what it was.

    Args:
        model: The model; where it is in float32 already, nothing happens.

    Example:
        ```python
        with computing_in_float32(model):  # several times faster on a CPU than bfloat16
            losses = measure(alive, candidates)
        ```
    """
    kept = {
        tensor: tensor.data
        for tensor in chain(model.parameters(), model.buffers())
        if tensor.dtype in (torch.bfloat16, torch.float16)
    }
    try:
        for tensor, original in kept.items():
            tensor.data = original.float()
        yield
    finally:
        for tensor, original in kept.items():
            tensor.data = original


def computes_in_float32(device: torch.device, wanted: Literal["auto", "float32", "model"]) -> bool:
    """Whether a model is to compute in float32 while it is measured.

    Args:
        device: The device that computes.
        wanted: The precision asked for; see `SLEBConfig.search_dtype`.

    Returns:
        Whether `computing_in_float32` applies.

    Example:
        ```python
        with computing_in_float32(model) if computes_in_float32(model.device, "auto") else nullcontext():
            ...
        ```
    """
    return wanted == "float32" or (wanted == "auto" and device.type == "cpu")
