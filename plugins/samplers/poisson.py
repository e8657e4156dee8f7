"""Poisson numbers from uniform ones."""

import torch
from torch import Tensor

MANY = 30.0
"""Up to this mean the distribution function is summed term by term, beyond it is bisected."""


def poisson(mean: Tensor, uniform: Tensor) -> Tensor:
    """The smallest k with P(X ≤ k) > u for X ~ Poisson(mean): int64, shape of mean and uniform (float64 in [0, 1)).

    Exact inversion, so that a count depends on its own uniform number alone.
    """
    few = mean <= MANY
    count = torch.zeros(mean.shape, dtype=torch.int64, device=mean.device)
    count[few] = _summed(mean[few], uniform[few])
    count[~few] = _bisected(mean[~few], uniform[~few])
    return count


def _summed(mean: Tensor, uniform: Tensor) -> Tensor:
    """By partial sums of e^{−m} m^k / k!."""
    count = torch.zeros_like(mean)
    term = torch.exp(-mean)
    below = term.clone()
    left = torch.arange(len(mean), device=mean.device)
    for k in range(1, _most(MANY)):
        left = left[below[left] <= uniform[left]]
        if not len(left):
            break
        term[left] = term[left] * mean[left] / k
        below[left] = below[left] + term[left]
        count[left] += 1
    return count.long()


def _bisected(mean: Tensor, uniform: Tensor) -> Tensor:
    """By bisection of P(X ≤ k), the regularised upper incomplete gamma function of (k + 1, m)."""
    low, high = torch.full_like(mean, -1.0), torch.floor(mean + 12 * mean.sqrt() + 40)
    while len(mean) and bool((high - low > 1).any()):
        middle = torch.floor((low + high) / 2)
        enough = torch.special.gammaincc(middle + 1, mean) > uniform
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high.long()


def _most(mean: float) -> int:
    """A count that a Poisson number of this mean does not exceed with 53-bit uniforms."""
    return int(mean + 12 * mean**0.5 + 40)
