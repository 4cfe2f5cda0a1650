"""Copying weights from the memory of the host to a device, beside what the device computes."""

import torch
from torch import Tensor

# Copies run beside the computation only out of page-locked memory, through which the weights pass in pieces: while
# one is on its way, the host fills the other. So the weights themselves can lie in ordinary memory, or in files that
# are mapped into it, and a machine needs no more memory than they take.
_PIECE = 64 * 2**20


class Transfer:
    """Copies tensors to a device, from a thread of its own.

    Args:
        device: The device. Where it is no CUDA device, copies are plain ones.

    Example:
        >>> transfer = Transfer(torch.device("cpu"))
        >>> transfer.copies([torch.ones(2)], transfer.so_far())
        [tensor([1., 1.])]
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_cuda = device.type == "cuda"
        if self._on_cuda:
            self._stream = torch.cuda.Stream(device)
            self._pieces = [torch.empty(_PIECE, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
            self._sent = [torch.cuda.Event() for _ in range(2)]
            self._turn = 0

    def so_far(self) -> "torch.cuda.Event | None":
        """Mark what the device has been told to compute so far.

        Returns:
            The mark; `None` where the device is no CUDA device.

        Example:
            >>> Transfer(torch.device("cpu")).so_far()
        """
        return torch.cuda.current_stream(self._device).record_event() if self._on_cuda else None

    def copies(self, tensors: list[Tensor], after: "torch.cuda.Event | None") -> list[Tensor]:
        """Copy tensors. This is what the thread runs; it returns when the copies are there.

        Args:
            tensors: The tensors, in host memory.
            after: A mark. The memory of the copies is taken only when the device has come so far.

        Returns:
            The copies, each for `hand_over`.

        Example:
            >>> Transfer(torch.device("cpu")).copies([torch.ones(2)], None)
            [tensor([1., 1.])]
        """
        if not self._on_cuda:
            return [tensor.to(self._device, copy=True) for tensor in tensors]
        if after is not None:
            after.synchronize()
        with torch.cuda.stream(self._stream):
            copies = [torch.empty_like(tensor, device=self._device) for tensor in tensors]
            for tensor, copy in zip(tensors, copies, strict=True):
                self._copy(tensor, copy)
            self._stream.synchronize()
        return copies

    def hand_over(self, copy: Tensor) -> Tensor:
        """Let the computation use a copy.

        Args:
            copy: One of `copies`.

        Returns:
            The same tensor, whose memory is not taken again before the computation is done with it.

        Example:
            >>> Transfer(torch.device("cpu")).hand_over(torch.ones(2))
            tensor([1., 1.])
        """
        if self._on_cuda:
            copy.record_stream(torch.cuda.current_stream(self._device))
        return copy

    def _copy(self, tensor: Tensor, copy: Tensor) -> None:
        if not (tensor.is_contiguous() and copy.is_contiguous()):
            copy.copy_(tensor)
            return
        source, target = (one.reshape(-1).view(torch.uint8) for one in (tensor, copy))
        for here, there in zip(source.split(_PIECE), target.split(_PIECE), strict=True):
            self._turn = 1 - self._turn
            piece = self._pieces[self._turn][: len(here)]
            self._sent[self._turn].synchronize()
            there.copy_(piece.copy_(here), non_blocking=True)
            self._sent[self._turn].record(self._stream)
