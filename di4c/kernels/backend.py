"""Which implementation handles a chunk of logits."""

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from di4c.kernels import torch_rows

SMALL_GPU_BYTES, LARGE_GPU_BYTES, LARGE_GPU = 256 * 2**20, 576 * 2**20, 40 * 10**9
"""The logits of a chunk on a GPU, and the memory from which the larger budget is taken. Half a sequence of 1024 tokens, 16 components
and 50258 states are three chunks of the larger one: at four the host, which starts some dozens of kernels a chunk, is the bound."""
CPU_BYTES = 24 * 2**20
"""glibc maps blocks above 32 MiB afresh each time, and the system clears their pages: below that a chunk is read out a fifth faster."""


def kernels_for(like: Tensor) -> ModuleType:
    """triton_rows for float32 (or narrower) tensors on CUDA where Triton is installed, else torch_rows."""
    if not kernels_apply(like):
        return torch_rows
    from di4c.kernels import triton_rows  # imports Triton

    return triton_rows


def kernels_apply(like: Tensor) -> bool:
    """Whether the kernels are for what this tensor gives."""
    return like.is_cuda and like.dtype != torch.float64 and triton_is_there()


@cache
def triton_is_there() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def chunk_budget(device: torch.device | str) -> int:
    """The default budget in bytes for a chunk's logits on a device, from its total memory (never from what is free: runs repeat)."""
    device = torch.device(device)
    return gpu_budget(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else CPU_BYTES


def gpu_budget(total_memory: int) -> int:
    """The same for a GPU of so many bytes."""
    return LARGE_GPU_BYTES if total_memory >= LARGE_GPU else SMALL_GPU_BYTES
