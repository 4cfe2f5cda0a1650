"""Models that are larger than the device: everything but the blocks lies there, and blocks come one at a time."""

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
    """Let a device compute with a model whose blocks stay in the memory of the host.

    Args:
        model: The model, in host memory. It is put back there when the context ends, also after an error.
        stack: Its decoder blocks.
        device: The device that computes.

    Yields:
        The stack, which brings its blocks to the device when they are run by a `BlockRunner`.

    Example:
        ```python
        with offloaded(model, stack, torch.device("cuda")) as stack:
            losses = LayerwiseLosses(model, stack, windows)(range(40), range(1, 39))
        ```
    """
    loader = BlockLoader(list(stack.blocks), device)
    try:
        with _around_blocks_on(device, model, stack):
            yield replace(stack, loader=loader)
    finally:
        loader.close()


@contextmanager
def running_whole(stack: DecoderStack) -> Iterator[None]:
    """Let the model's own forward bring the blocks that are offloaded.

    Args:
        stack: The decoder blocks; where they have no loader, nothing happens.

    Example:
        ```python
        with offloaded(model, stack, torch.device("cuda")) as stack, running_whole(stack):
            logits = model(ids.to("cuda")).logits
        ```
    """
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
    """Let a shortened model run on the device to which the blocks are brought whose weights it shares.

    Args:
        template: The shortened model, with its weights.
        stack: The decoder blocks of the model with all its blocks; where they have no loader, nothing happens.

    Example:
        ```python
        with offloaded_alike(template, stack):
            logits = template(ids).logits
        ```
    """
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
    """Everything but the blocks on a device."""
    in_blocks = {id(tensor) for tensor in chain(stack.blocks.parameters(), stack.blocks.buffers())}
    tensors = [tensor for tensor in chain(model.parameters(), model.buffers()) if id(tensor) not in in_blocks]
    originals = [tensor.data for tensor in tensors]
    # Some rotary embeddings put other buffers in the place of theirs when they see a longer window.
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
