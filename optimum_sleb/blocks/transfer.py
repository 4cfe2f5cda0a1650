"""Copies of weights from host memory to a device, while the device computes."""

import torch
from torch import Tensor

# Only copies from page-locked memory run in parallel to the computation. The weights pass through two page-locked
# buffers of this size in bytes: one is copied while the host fills the other. So the weights themselves can be in
# ordinary memory, or in mapped files, and need no second copy in host memory.
_PIECE = 64 * 2**20


class Transfer:
    """Copier of tensors to a device, for use in a thread; on other devices than CUDA it makes plain copies."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_cuda = device.type == "cuda"
        if self._on_cuda:
            self._stream = torch.cuda.Stream(device)
            self._pieces = [torch.empty(_PIECE, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
            self._sent = [torch.cuda.Event() for _ in range(2)]
            self._turn = 0

    def queued_work(self) -> "torch.cuda.Event | None":
        """Return an event after all work queued on the device so far; None without CUDA."""
        return torch.cuda.current_stream(self._device).record_event() if self._on_cuda else None

    def copy_all(self, tensors: list[Tensor], after: "torch.cuda.Event | None") -> list[Tensor]:
        """Return finished copies on the device, allocated only after the event; this is what the thread calls."""
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

    def record_use(self, copy: Tensor) -> Tensor:
        """Return a copy, whose memory is from now on not reused before the computation is done with it."""
        if self._on_cuda:
            copy.record_stream(torch.cuda.current_stream(self._device))
        return copy

    def _copy(self, tensor: Tensor, copy: Tensor) -> None:
        if not (tensor.is_contiguous() and copy.is_contiguous()):
            copy.copy_(tensor)
            return
        source, target = (one.reshape(-1).view(torch.uint8) for one in (tensor, copy))
        for source_piece, target_piece in zip(source.split(_PIECE), target.split(_PIECE), strict=True):
            self._turn = 1 - self._turn
            piece = self._pieces[self._turn][: len(source_piece)]
            self._sent[self._turn].synchronize()
            target_piece.copy_(piece.copy_(source_piece), non_blocking=True)
            self._sent[self._turn].record(self._stream)
