"""How much memory a device has left, what of it a model takes, and whether it ran out."""

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedModel

from .errors import SLEBError

# Beyond the weights a search takes hidden states, logits and their loss: 0.7 GB for a LLaMA-2-7B shape, a little more
# for a wide vocabulary. From there on it uses what is free.
WORKING_MEMORY = 3 * 2**29
# Of the memory that is free, so much stays free: other allocations come and go, and fragments cannot be used.
_SPARE = 0.2
# What libraries say of it that `should_reduce_batch_size` does not know: cuBLAS, cuDNN and cuSOLVER of their
# workspaces, and CUDA where PyTorch's own allocator was not asked.
_SAYINGS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED")


def memory_left(device: torch.device) -> int | None:
    """Memory that this process can still take on a device, with what PyTorch holds ready.

    Args:
        device: The device.

    Returns:
        Bytes; `None` for a CPU, whose memory is not counted.

    Example:
        >>> memory_left(torch.device("cpu"))
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    # Since torch 2.8 one can ask for the limit of `torch.cuda.set_per_process_memory_fraction`.
    share = getattr(torch.cuda.memory, "get_per_process_memory_fraction", lambda device: 1.0)(device)
    return min(free, int(share * total) - held) + held - torch.cuda.memory_allocated(device)


def usable_memory(device: torch.device) -> int:
    """Memory of a CUDA device that a search may take.

    Args:
        device: The device.

    Returns:
        Bytes: most of what is left.

    Example:
        ```python
        usable_memory(torch.device("cuda"))
        ```
    """
    return int((memory_left(device) or 0) * (1 - _SPARE))


def weight_bytes(model: PreTrainedModel, dtype: torch.dtype | None = None) -> int:
    """Memory of a model's weights.

    Args:
        model: The model, possibly on the meta device.
        dtype: Count the copies in this precision as well that a search in it makes; `None` counts none.

    Returns:
        Bytes.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=40, n_positions=8))
        >>> weight_bytes(model), weight_bytes(model, torch.float32)
        (5088, 5088)
    """
    size = model.get_memory_footprint()
    if dtype is not None:
        copied = [parameter for parameter in model.parameters() if parameter.itemsize < dtype.itemsize]
        size += sum(parameter.numel() * dtype.itemsize for parameter in copied)
    return size


def too_large(num_bytes: int, device: torch.device) -> str | None:
    """Why weights do not fit a device, if they do not.

    Args:
        num_bytes: Memory that they take.
        device: The device.

    Returns:
        The reason, or `None`.

    Example:
        >>> too_large(10**15, torch.device("cpu"))
    """
    left = memory_left(device)
    if left is None or num_bytes + WORKING_MEMORY <= left:
        return None
    return f"the weights take {num_bytes / 1e9:.1f} GB, and {device} has {left / 1e9:.1f} GB left"


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error tells that memory ran out, so that less at a time might fit.

    Libraries that PyTorch calls do not raise its `OutOfMemoryError`, but a `RuntimeError` with a message of their own.

    Args:
        error: What was raised, if anything was.

    Returns:
        Whether it is about memory. An error of this package is not: it tells the remedy already.

    Example:
        >>> ran_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
        True
        >>> ran_out_of_memory(RuntimeError("shapes cannot be multiplied"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, SLEBError) or not isinstance(error, RuntimeError):
        return False
    message = str(error)
    return should_reduce_batch_size(RuntimeError(message)) or any(saying in message for saying in _SAYINGS)
