"""Whatever says that memory ran out is understood, and nothing else is."""

import pytest
import torch

from optimum_sleb.errors import OutOfMemoryError, RankError
from optimum_sleb.runtime.memory import ran_out_of_memory

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.OutOfMemoryError(),
    MemoryError(),
    RuntimeError("CUDA out of memory"),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError(
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input."
    ),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
]
OTHER = [
    None,
    ValueError("out of memory"),
    RuntimeError(3, "a family's own"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    OutOfMemoryError("Memory ran out; use a larger device."),
    RankError("Another process is gone, and this one cannot go on without it (out of memory)."),
]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_memory_that_ran_out(error: Exception) -> None:
    assert ran_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_other_errors(error: Exception | None) -> None:
    assert not ran_out_of_memory(error)
