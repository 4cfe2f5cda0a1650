"""Computing in a wider precision than that of a model's weights."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..runtime.undo import undoing
from .loader import BlockLoader


@contextmanager
def computing_in_float32(model: PreTrainedModel, loader: BlockLoader | None = None) -> Iterator[None]:
    """Let a half-precision model compute in float32 for a while; its weights are restored bit for bit.
    `loader` loads its blocks to the device, if they are in host memory."""
    tensors = chain(model.parameters(), model.buffers())
    halves = [tensor for tensor in tensors if tensor.dtype in (torch.bfloat16, torch.float16)]
    with replacing_data(halves, lambda tensor: tensor.data.float(), loader):
        yield


@contextmanager
def replacing_data(
    tensors: Iterable[Tensor], new_data: Callable[[Tensor], Tensor], loader: BlockLoader | None = None
) -> Iterator[None]:
    """Let parameters and buffers have other data in a context; their own are kept and restored as they are."""
    changing = nullcontext if loader is None else loader.changing_weights
    with changing():
        originals = {tensor: tensor.data for tensor in tensors}

    def restore() -> None:
        with changing():
            for tensor, original in originals.items():
                tensor.data = original

    with undoing(restore):
        with changing():
            for tensor in originals:
                tensor.data = new_data(tensor)
        yield


def computes_in_float32(device: torch.device, search_dtype: Literal["auto", "float32", "model"]) -> bool:
    """Tell whether to measure in float32, by `SLEBConfig.search_dtype`; "auto" does on a CPU, where it is faster."""
    return search_dtype == "float32" or (search_dtype == "auto" and device.type == "cpu")
