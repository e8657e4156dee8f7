"""Rate matrices of Markov chains on S states, and how fast the chains run.

A rate matrix R [S, S] is indexed [from, to]; its rows sum to 0. All here are in detailed balance with their stationary
law π: π(i)·R[i, j] = π(j)·R[j, i].
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.errors import SpecError

MAX_STATES = 4096
"""Transition matrices [S, S] in float64 take 128 MiB each at this size."""


@dataclass(frozen=True)
class RateMatrix:
    """R [S, S] float64 and log π [S] float64 (normalised)."""

    rate: Tensor
    log_stationary: Tensor


def gaussian_target_rate(num_states: int, *, rate_sigma: float, target_sigma: float) -> RateMatrix:
    """The chain of Campbell et al. 2022 (their section H.2) that settles in a discretised Gaussian.

    π(x) ∝ exp(−(x − c)²/(2·target_sigma²)), c = S/2 − 1. For a < b, with the distance k = b − a − 1 (neighbours: 0),
    the jump towards c of the state that is farther from it has rate exp(−k²/rate_sigma²), the jump back what detailed
    balance says: R[a, b] = exp(−k²/rate_sigma²) if a + b < S, else R[b, a] is.
    """
    _positive("rate_sigma", rate_sigma)
    _positive("target_sigma", target_sigma)
    _enough_memory(num_states)
    state = torch.arange(num_states, dtype=torch.float64)
    log_target = log_gaussian(num_states, target_sigma)
    jump = torch.exp(-((state[:, None] - state).abs() - 1).square() / rate_sigma**2)
    low, high = torch.minimum(state[:, None], state), torch.maximum(state[:, None], state)
    inwards = torch.where(low + high < num_states, state[:, None] < state, state[:, None] > state)
    balanced = jump * torch.exp(log_target[None, :] - log_target[:, None])
    return RateMatrix(_with_diagonal(torch.where(inwards, jump, balanced)), log_target)


def log_gaussian(num_states: int, sigma: float) -> Tensor:
    """log of exp(−(x − c)²/(2σ²)) normalised on x = 0, …, S − 1, with c = S/2 − 1: [S] float64."""
    _positive("sigma", sigma)
    state = torch.arange(num_states, dtype=torch.float64)
    return (-(state + 1 - num_states / 2).square() / (2 * sigma**2)).log_softmax(0)


def birth_death_rate(num_states: int) -> RateMatrix:
    """Jumps to each neighbour at rate 1; π uniform (Campbell et al. 2022)."""
    _enough_memory(num_states)
    ones = torch.ones(num_states - 1, dtype=torch.float64)
    return RateMatrix(_with_diagonal(ones.diag(1) + ones.diag(-1)), _log_uniform(num_states))


def uniform_rate(num_states: int) -> RateMatrix:
    """Jumps to every other state at rate 1/S: exp(Rτ) keeps a state with e^{−τ}, else redraws it; π uniform."""
    _enough_memory(num_states)
    rate = torch.full((num_states, num_states), 1 / num_states, dtype=torch.float64)
    return RateMatrix(_with_diagonal(rate), _log_uniform(num_states))


@dataclass(frozen=True)
class ExponentialTime:
    """β(t) = base·ln(growth)·growth^t, so that ∫₀ᵗ β = base·(growth^t − 1)."""

    base: float
    growth: float

    def __post_init__(self):
        _positive("time_base", self.base)
        if not 1 < self.growth < math.inf:
            raise SpecError(f"process: time_exponential is {self.growth}; it must be above 1 and finite")

    def rate(self, t: Tensor) -> Tensor:
        """β(t): [B]."""
        return self.base * math.log(self.growth) * self.growth**t

    def integral(self, t: Tensor) -> Tensor:
        """∫₀ᵗ β: [B]."""
        return self.base * torch.expm1(t * math.log(self.growth))


@dataclass(frozen=True)
class ConstantTime:
    """β(t) = speed."""

    speed: float

    def __post_init__(self):
        _positive("speed", self.speed)

    def rate(self, t: Tensor) -> Tensor:
        """β(t): [B]."""
        return torch.full_like(t, self.speed)

    def integral(self, t: Tensor) -> Tensor:
        """∫₀ᵗ β: [B]."""
        return self.speed * t


def _with_diagonal(jumps: Tensor) -> Tensor:
    """The rate matrix with these off-diagonal entries."""
    off = jumps - torch.diag(jumps.diagonal())
    return off - torch.diag(off.sum(1))


def _log_uniform(num_states: int) -> Tensor:
    return torch.full((num_states,), -math.log(num_states), dtype=torch.float64)


def _enough_memory(num_states: int) -> None:
    if num_states > MAX_STATES:
        raise SpecError(
            f"process: {num_states} states are too many for transition matrices (at most {MAX_STATES}); "
            "use a masked process (absorbing) for large vocabularies"
        )


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise SpecError(f"process: {name} is {value}; it must be positive and finite")
