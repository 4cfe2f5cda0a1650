"""Running of models larger than the device: blocks stay in host memory and are loaded one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel

from ..runtime.undo import undoing
from .loader import BlockLoader
from .precision import replacing_data
from .stack import DecoderStack
from .state import removing_hooks


@contextmanager
def offloaded(model: PreTrainedModel, stack: DecoderStack, device: torch.device) -> Iterator[DecoderStack]:
    """Yield the stack with a loader for its blocks, while all other tensors of the model are on the device."""
    loader = BlockLoader(list(stack.blocks), device)
    with undoing(loader.close), _rest_on_device(device, model, stack):
        yield replace(stack, loader=loader)


@contextmanager
def loading_hooks(stack: DecoderStack) -> Iterator[None]:
    """Load each offloaded block when the model's own forward reaches it; do nothing without a loader."""
    loader = stack.loader
    if loader is None:
        yield
        return
    with removing_hooks() as hooks:
        for index, block in enumerate(stack.blocks):
            hooks.append(block.register_forward_pre_hook(lambda _module, _args, index=index: loader.load(index)))
        yield


@contextmanager
def offloaded_like(template: PreTrainedModel, stack: DecoderStack) -> Iterator[None]:
    """Offload a shortened model like the dense model whose weights it shares; do nothing without a loader."""
    if stack.loader is None:
        yield
        return
    stack.loader.release_all()
    blocks = template.get_submodule(stack.path)
    assert isinstance(blocks, nn.ModuleList)
    template_stack = DecoderStack(stack.path, blocks, {})
    with offloaded(template, template_stack, stack.loader.device) as template_stack, loading_hooks(template_stack):
        yield


@contextmanager
def _rest_on_device(device: torch.device, model: PreTrainedModel, stack: DecoderStack) -> Iterator[None]:
    """Move everything but the blocks to a device, and back at the end."""
    in_blocks = {id(tensor) for tensor in chain(stack.blocks.parameters(), stack.blocks.buffers())}
    tensors = [tensor for tensor in chain(model.parameters(), model.buffers()) if id(tensor) not in in_blocks]
    # Some rotary embeddings replace their buffers when they see a longer window.
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and id(buffer) not in in_blocks
    ]

    def restore() -> None:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer

    with undoing(restore), replacing_data(tensors, lambda tensor: tensor.data.to(device)):
        yield
