"""Running of models larger than the device: blocks stay in host memory and are loaded one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel

from .loader import BlockLoader
from .stack import DecoderStack


@contextmanager
def offloaded(model: PreTrainedModel, stack: DecoderStack, device: torch.device) -> Iterator[DecoderStack]:
    """Yield the stack with a loader for its blocks, while all other tensors of the model are on the device."""
    loader = BlockLoader(list(stack.blocks), device)
    try:
        with _around_blocks_on(device, model, stack):
            yield replace(stack, loader=loader)
    finally:
        loader.close()


@contextmanager
def running_whole(stack: DecoderStack) -> Iterator[None]:
    """Load each offloaded block when the model's own forward reaches it; do nothing without a loader."""
    loader = stack.loader
    if loader is None:
        yield
        return
    hooks = [
        block.register_forward_pre_hook(lambda _module, _args, index=index: loader.bring(index))
        for index, block in enumerate(stack.blocks)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def offloaded_alike(template: PreTrainedModel, stack: DecoderStack) -> Iterator[None]:
    """Offload a shortened model like the dense model whose weights it shares; do nothing without a loader."""
    if stack.loader is None:
        yield
        return
    stack.loader.rest()
    blocks = template.get_submodule(stack.path)
    assert isinstance(blocks, nn.ModuleList)
    with offloaded(template, DecoderStack(stack.path, blocks, {}), stack.loader.device) as there, running_whole(there):
        yield


@contextmanager
def _around_blocks_on(device: torch.device, model: PreTrainedModel, stack: DecoderStack) -> Iterator[None]:
    """Move everything but the blocks to a device, and back at the end."""
    in_blocks = {id(tensor) for tensor in chain(stack.blocks.parameters(), stack.blocks.buffers())}
    tensors = [tensor for tensor in chain(model.parameters(), model.buffers()) if id(tensor) not in in_blocks]
    originals = [tensor.data for tensor in tensors]
    # Some rotary embeddings replace their buffers when they see a longer window.
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and id(buffer) not in in_blocks
    ]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(device)
        yield
    finally:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.data = original
