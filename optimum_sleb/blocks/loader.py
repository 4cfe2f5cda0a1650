"""Bringing decoder blocks from the memory of the host to the device, one at a time."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import torch
from torch import Tensor, nn

from .transfer import Transfer


class BlockLoader:
    """Brings blocks from the memory of the host to a device: the one that is asked for, and, meanwhile, the next.

    A thread of its own loads the next block while the device computes. It waits until the block before has been used
    for the last time, so at most two blocks are on the device, however far the host runs ahead of it.

    Args:
        blocks: The decoder blocks, in host memory: allocated, or mapped from safetensors files, of which the parts
            are then read when they are needed.
        device: The device that computes.

    Example:
        ```python
        loader = BlockLoader(list(model.model.layers), torch.device("cuda"))
        loader.bring(3)  # block 3 can run; block 4 is on its way
        ```
    """

    def __init__(self, blocks: list[nn.Module], device: torch.device) -> None:
        self._tensors = [list(chain(block.parameters(), block.buffers())) for block in blocks]
        self._host = [[tensor.data for tensor in tensors] for tensors in self._tensors]
        self._places = {
            id(tensor): (index, slot) for index, row in enumerate(self._tensors) for slot, tensor in enumerate(row)
        }
        self.device = device
        self._transfer = Transfer(device)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sleb-blocks")
        self._coming: tuple[int, Future[list[Tensor]]] | None = None
        self._here: int | None = None
        self._next: dict[int, int] = {}
        self.loads = 0
        self.expect(range(len(blocks)))

    @property
    def most_bytes(self) -> int:
        """Memory of the device that blocks take at most: that of two."""
        return sum(sorted(sum(tensor.nbytes for tensor in row) for row in self._host)[-2:])

    def expect(self, blocks: Sequence[int]) -> None:
        """Say in which order blocks will be asked for, again and again.

        Args:
            blocks: Their indices.

        Example:
            ```python
            loader.expect([0, 1, 2, 5, 6])  # blocks 3 and 4 are gone
            ```
        """
        self._next = dict(zip(blocks, [*blocks[1:], *blocks[:1]], strict=True))

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
        if self._coming is None or self._coming[0] != index:
            self._start(index)
        assert self._coming is not None
        (_, loading), self._coming = self._coming, None
        for tensor, copy in zip(self._tensors[index], loading.result(), strict=True):
            tensor.data = self._transfer.hand_over(copy)
        self._here = index
        following = self._next.get(index, index)
        if following != index:
            self._start(following)

    def release(self) -> None:
        """Let go of the block that is on the device. Its weights in host memory are those of `keep`.

        Example:
            ```python
            loader.release()
            ```
        """
        if self._here is not None:
            for tensor, original in zip(self._tensors[self._here], self._host[self._here], strict=True):
                tensor.data = original
            self._here = None

    def rest(self) -> None:
        """Leave nothing on the device, until a block is asked for again.

        Example:
            ```python
            loader.rest()
            ```
        """
        self.release()
        if self._coming is not None:
            self._coming[1].exception()  # it takes memory until it is through
            self._coming = None

    def keep(self, tensor: Tensor) -> None:
        """Take over what was written to a weight, wherever it lay, so that the block comes with it from now on.

        Args:
            tensor: The parameter or buffer of a block.

        Example:
            ```python
            parameter.data.copy_(value)
            loader.keep(parameter)
            ```
        """
        index, slot = self._places[id(tensor)]
        if self._coming is not None and self._coming[0] == index:
            self._coming[1].exception()  # it may be halfway through; what it brings is the old weight
            self._coming = None
        host = self._host[index][slot]
        if tensor.data_ptr() != host.data_ptr():
            host.copy_(tensor.data)

    def close(self) -> None:
        """Let go of everything.

        Example:
            ```python
            loader.close()
            ```
        """
        self.rest()
        self._worker.shutdown(cancel_futures=True)

    def _start(self, index: int) -> None:
        self.loads += 1
        used = self._transfer.so_far()
        self._coming = index, self._worker.submit(self._transfer.copies, self._host[index], used)
