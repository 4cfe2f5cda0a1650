"""Memory that a device has left and that a model takes, and recognition of errors that mean it ran out."""

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedModel

from ..errors import SLEBError

# Bytes that a search needs besides the weights, for hidden states, logits and their loss: 0.7 GB for the shape of
# LLaMA-2-7B, a little more for a large vocabulary. Where more is free, it uses more.
WORKING_MEMORY = 3 * 2**29
# Share of the free memory that stays free, for other allocations and because of fragmentation.
_SPARE = 0.2
# Messages that `should_reduce_batch_size` does not know: from cuBLAS, cuDNN and cuSOLVER about their workspaces, and
# from CUDA for memory that PyTorch's own allocator does not manage.
_SAYINGS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED")


def memory_left(device: torch.device) -> int | None:
    """Return the bytes that this process can still take on a CUDA device, with PyTorch's reserve; None for others."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    # The limit of `torch.cuda.set_per_process_memory_fraction` can be read since torch 2.8.
    share = getattr(torch.cuda.memory, "get_per_process_memory_fraction", lambda device: 1.0)(device)
    return min(free, int(share * total) - held) + held - torch.cuda.memory_allocated(device)


def usable_memory(device: torch.device) -> int:
    """Return the bytes of a CUDA device that a search may take: most of what is left."""
    return int((memory_left(device) or 0) * (1 - _SPARE))


def weight_bytes(model: PreTrainedModel, dtype: torch.dtype | None = None) -> int:
    """Return the bytes of a model's weights, plus those of the copies that a search in a wider `dtype` makes."""
    size = model.get_memory_footprint()
    if dtype is not None:
        copied = [parameter for parameter in model.parameters() if parameter.itemsize < dtype.itemsize]
        size += sum(parameter.numel() * dtype.itemsize for parameter in copied)
    return size


def too_large(num_bytes: int, device: torch.device) -> str | None:
    """Return why weights of that many bytes do not fit a device, or None where they do."""
    left = memory_left(device)
    if left is None or num_bytes + WORKING_MEMORY <= left:
        return None
    return f"the weights take {num_bytes / 1e9:.1f} GB, and {device} has {left / 1e9:.1f} GB left"


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error means that memory ran out, so that smaller batches might fit; never for a SLEBError.

    >>> ran_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    True
    >>> ran_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # An error of this package names the remedy already. Libraries that PyTorch calls raise a plain RuntimeError.
    if isinstance(error, SLEBError) or not isinstance(error, RuntimeError):
        return False
    message = str(error)
    return should_reduce_batch_size(RuntimeError(message)) or any(saying in message for saying in _SAYINGS)
