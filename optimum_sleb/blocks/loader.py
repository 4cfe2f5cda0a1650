"""Loading of decoder blocks from host memory to the device, one at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from .transfer import Transfer


class BlockLoader:
    """Loader of blocks from host memory (or mapped safetensors files) to a device: one on request, the next ahead.

    The next block is loaded by a thread while the device computes, but only after the block before has been used for
    the last time. So at most two blocks are on the device, even where the host runs ahead of it.
    """

    def __init__(self, blocks: list[nn.Module], device: torch.device) -> None:
        self._tensors = [list(chain(block.parameters(), block.buffers())) for block in blocks]
        self._host: list[list[Tensor]] = []
        self._read_host()
        self._slots = {
            id(tensor): (index, slot) for index, row in enumerate(self._tensors) for slot, tensor in enumerate(row)
        }
        self.device = device
        self._transfer = Transfer(device)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sleb-blocks")
        self._prefetch: tuple[int, Future[list[Tensor]]] | None = None
        self._current: int | None = None
        self._following: dict[int, int] = {}
        self.loads = 0
        self.set_order(range(len(blocks)))

    @property
    def most_bytes(self) -> int:
        """Return the largest device memory that blocks take: that of the two largest."""
        return sum(sorted(sum(tensor.nbytes for tensor in row) for row in self._host)[-2:])

    def set_order(self, blocks: Sequence[int]) -> None:
        """Set the order in which blocks will be asked for, again and again."""
        self._following = dict(zip(blocks, [*blocks[1:], *blocks[:1]], strict=True))

    def load(self, index: int) -> None:
        """Make a block ready to run on the device, and start to load the next."""
        if index == self._current:
            return
        self.release()
        if self._prefetch is None or self._prefetch[0] != index:
            self._start_prefetch(index)
        assert self._prefetch is not None
        (_, loading), self._prefetch = self._prefetch, None
        copies = loading.result()
        self._current = index  # first, so that an interrupt in the loop leaves a block that `release` knows of
        for tensor, copy in zip(self._tensors[index], copies, strict=True):
            tensor.data = self._transfer.record_use(copy)
        following = self._following.get(index, index)
        if following != index:
            self._start_prefetch(following)

    def release(self) -> None:
        """Point the current block back to its weights in host memory, and free its copy on the device."""
        if self._current is not None:
            for tensor, original in zip(self._tensors[self._current], self._host[self._current], strict=True):
                tensor.data = original
            self._current = None

    def release_all(self) -> None:
        """Free all blocks on the device, until one is asked for again."""
        self.release()
        self._drop_prefetch()  # a copy under way takes memory until it is finished

    def write_back(self, tensor: Tensor) -> None:
        """Write a changed parameter or buffer of a block back to host memory, so that later loads have it."""
        index, slot = self._slots[id(tensor)]
        if self._prefetch is not None and self._prefetch[0] == index:
            self._drop_prefetch()  # it has the old weight
        original = self._host[index][slot]
        if tensor.data_ptr() != original.data_ptr():
            original.copy_(tensor.data)

    @contextmanager
    def changing_weights(self) -> Iterator[None]:
        """Let a context point parameters and buffers to other data in host memory, which is loaded from then on."""
        self.release_all()
        try:
            yield
        finally:
            self._read_host()

    def _read_host(self) -> None:
        self._host = [[tensor.data for tensor in tensors] for tensors in self._tensors]

    def close(self) -> None:
        """Free all blocks on the device and end the thread."""
        self.release_all()
        self._worker.shutdown(cancel_futures=True)

    def _drop_prefetch(self) -> None:
        """Forget the block that is loaded ahead, as soon as its copy is finished."""
        if self._prefetch is not None:
            self._prefetch[1].exception()  # waits for it
            self._prefetch = None

    def _start_prefetch(self, index: int) -> None:
        self.loads += 1
        used = self._transfer.queued_work()
        self._prefetch = index, self._worker.submit(self._transfer.copy_all, self._host[index], used)
