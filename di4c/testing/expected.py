"""What every check uses: an expectation that fails with its message, times, and tokens that may stand in data."""

import torch
from torch import Tensor

from di4c.contracts import Draws, ForwardProcess


def require(condition: bool | Tensor, message: str) -> None:
    if not bool(condition):
        raise AssertionError(message)


def all_at(count: int, t: float) -> Tensor:
    return torch.full((count,), t, dtype=torch.float64)


def data_tokens(process: ForwardProcess, draws: Draws, positions: int) -> Tensor:
    """Any states but the mask, wherever among them it is: [B, D]."""
    if process.mask_index is None:
        return draws.integers(process.num_states, positions)
    x_0 = draws.integers(process.num_states - 1, positions)
    return x_0 + (x_0 >= process.mask_index)
