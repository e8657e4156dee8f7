"""The sinusoidal embedding of a real number, in the two orders and spacings that published networks use."""

import math

import torch
from torch import Tensor


def sinusoid(x: Tensor, width: int, *, sine_first: bool, inclusive: bool, base: float = 10000.0) -> Tensor:
    """sin and cos of x·base^(−k/n) for k = 0, …, width/2 − 1: [..., width] float32, from x [...].

    n = width/2 − 1 if `inclusive` (the slowest frequency is exactly 1/base), else width/2. `sine_first` gives
    [sin, cos], otherwise [cos, sin]. `width` must be even. Computed in float32 whatever the dtype around it.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=x.device)
    frequencies = torch.exp(-math.log(base) / (half - 1 if inclusive else half) * steps)
    angles = x.float().unsqueeze(-1) * frequencies
    parts = (angles.sin(), angles.cos()) if sine_first else (angles.cos(), angles.sin())
    return torch.cat(parts, dim=-1)
