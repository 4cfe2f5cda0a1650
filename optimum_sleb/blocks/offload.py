"""Models that are larger than the device: everything but the blocks lies there, and blocks come one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .stack import DecoderStack


class BlockLoader:
    """Brings blocks from the memory of the host to a device: the one that is asked for, and, meanwhile, the next.

    Weights lie in page-locked memory, from which a copy runs beside the computation, on a stream of its own. At most
    two blocks are on the device.

    Args:
        blocks: The decoder blocks, in host memory.
        device: The device that computes.

    Example:
        ```python
        loader = BlockLoader(list(model.model.layers), torch.device("cuda"))
        loader.bring(3)  # block 3 can run; block 4 is on its way
        ```
    """

    def __init__(self, blocks: list[nn.Module], device: torch.device) -> None:
        self._device = device
        self._on_cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._on_cuda else None
        self._tensors = [list(chain(block.parameters(), block.buffers())) for block in blocks]
        self._host: list[list[Tensor]] = []
        for tensors in self._tensors:
            for tensor in tensors:
                if self._on_cuda:
                    tensor.data = tensor.data.pin_memory()
            self._host.append([tensor.data for tensor in tensors])
        self._coming: dict[int, list[Tensor]] = {}
        self._here: int | None = None

    def bring(self, index: int) -> None:
        """Make a block ready to run, and start on the next.

        Args:
            index: Index of the block.

        Example:
            ```python
            loader.bring(3)
            ```
        """
        if index == self._here:
            return
        self.release()
        self._start(index)
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        for tensor, copy in zip(self._tensors[index], self._coming.pop(index), strict=True):
            tensor.data = copy
        self._here = index
        self._coming.clear()  # what was on its way is not what was asked for
        if index + 1 < len(self._tensors):
            self._start(index + 1)

    def release(self) -> None:
        """Put the block that is on the device back to the host. Its weights have not changed.

        Example:
            ```python
            loader.release()
            ```
        """
        if self._here is not None:
            for tensor, original in zip(self._tensors[self._here], self._host[self._here], strict=True):
                tensor.data = original
            self._here = None

    def _start(self, index: int) -> None:
        if index in self._coming:
            return
        if self._stream is None:
            self._coming[index] = [tensor.to(self._device) for tensor in self._host[index]]
            return
        # Memory of a block that was let go may still be in use by what was started before.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            copies = [tensor.to(self._device, non_blocking=True) for tensor in self._host[index]]
        for copy in copies:
            copy.record_stream(torch.cuda.current_stream(self._device))
        self._coming[index] = copies


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
    with _around_blocks_on(device, model, stack):
        try:
            yield replace(stack, loader=loader)
        finally:
            loader.release()


@contextmanager
def back_on_host(model: PreTrainedModel, stack: DecoderStack) -> Iterator[None]:
    """Put a model whose blocks are offloaded back into the memory of the host for a while.

    Args:
        model: The model.
        stack: Its decoder blocks; without a loader nothing happens.

    Example:
        ```python
        with back_on_host(model, stack):
            reason = refusal(model, stack, {3})
        ```
    """
    if stack.loader is None:
        yield
        return
    stack.loader.release()
    with _around_blocks_on(torch.device("cpu"), model, stack):
        yield


@contextmanager
def _around_blocks_on(device: torch.device, model: PreTrainedModel, stack: DecoderStack) -> Iterator[None]:
    """Everything but the blocks on a device."""
    in_blocks = {id(tensor) for tensor in chain(stack.blocks.parameters(), stack.blocks.buffers())}
    tensors = [tensor for tensor in chain(model.parameters(), model.buffers()) if id(tensor) not in in_blocks]
    originals = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(device)
        yield
    finally:
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.data = original
