"""The same bits from every run of the same spec on the same machine, where that is asked for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from di4c.errors import SpecError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""cuBLAS reads it when it starts: with a workspace of a fixed size it adds in a fixed order."""
WORKSPACES = (":4096:8", ":16:8")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, if `wanted`, torch and cuDNN take deterministic algorithms alone, and an operation that has none raises RuntimeError.

    torch would also fill every empty tensor, DeepSpeed's buckets of gigabytes too, which no result is read from. Changes nothing where it is not wanted, and restores what was set. Raises SpecError for a CUBLAS_WORKSPACE_CONFIG of another kind.
    """
    if not wanted:
        yield
        return
    if os.environ.setdefault(WORKSPACE, WORKSPACES[0]) not in WORKSPACES:
        raise SpecError(
            f"train.deterministic: {WORKSPACE}={os.environ[WORKSPACE]} in the environment; allowed: {', '.join(WORKSPACES)}"
        )
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn_before = cudnn.deterministic, cudnn.benchmark
    filled_before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = cudnn_before
        torch.utils.deterministic.fill_uninitialized_memory = filled_before
