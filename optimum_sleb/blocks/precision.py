"""Computing in a wider precision than that of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Literal

import torch
from transformers import PreTrainedModel


@contextmanager
def computing_in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Let a half-precision model compute in float32 for a while; its weights are restored bit for bit."""
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
    """Tell whether to measure in float32, by `SLEBConfig.search_dtype`; "auto" does on a CPU, where it is faster."""
    return wanted == "float32" or (wanted == "auto" and device.type == "cpu")
