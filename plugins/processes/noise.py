"""The noise schedules MDLM is published with: total noise σ(t), mask probability m(t) = 1 − e^(−σ(t)).

    log-linear      σ = −log(1 − (1−ε)·t)
    cosine          σ = −log(ε + (1−ε)·cos(πt/2))
    cosine-squared  σ = −log(ε + (1−ε)·cos²(πt/2))
    linear          σ = σ_min + t·(σ_max − σ_min)
    geometric       σ = σ_min^(1−t)·σ_max^t

(Sahoo et al. 2024, appendix E, and the published configuration.) The first three end at m(1) = 1 − ε; ε = 0 gives
schedules that mask everything. The last two leave e^(−σ_max) of the positions visible at t = 1, and geometric masks
some at t = 0.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from di4c.errors import SpecError
from di4c_plugins.processes.schedules import MaskSchedule, Shape


class Noise(MaskSchedule):
    """A mask schedule given by its total noise."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """σ(t): the shape and dtype of t."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """σ′(t)."""

    def masked(self, t: Tensor) -> Tensor:
        """m(t) = 1 − e^(−σ(t)), and 0 at t = 0: x_0 itself, whatever σ(0) is."""
        return torch.where(t > 0, -torch.expm1(-self.sigma(t)), 0.0)

    def log_rate(self, t: Tensor) -> Tensor:
        """m′/m = σ′/(e^σ − 1)."""
        return self.rate(t) / torch.expm1(self.sigma(t))


INTERPOLATED: dict[str, tuple[Shape, Shape]] = {
    "log-linear": (lambda t: t, torch.ones_like),
    "cosine": (lambda t: 2 * torch.sin(math.pi / 4 * t) ** 2, lambda t: math.pi / 2 * torch.sin(math.pi / 2 * t)),
    "cosine-squared": (lambda t: torch.sin(math.pi / 2 * t) ** 2, lambda t: math.pi / 2 * torch.sin(math.pi * t)),
}
"""f(t), from 0 to 1, and f′(t): t, 1 − cos(πt/2) and sin²(πt/2)."""


class Interpolated(Noise):
    """σ = −log(1 − (1−ε)·f(t)) with f of INTERPOLATED by its name: the mask probability is (1−ε)·f(t)."""

    def __init__(self, name: str, epsilon: float):
        self.name, self.epsilon = name, epsilon

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.log1p(-self.masked(t))

    def rate(self, t: Tensor) -> Tensor:
        return (1 - self.epsilon) * INTERPOLATED[self.name][1](t) / (1 - self.masked(t))

    def masked(self, t: Tensor) -> Tensor:
        return (1 - self.epsilon) * INTERPOLATED[self.name][0](t)

    def log_rate(self, t: Tensor) -> Tensor:
        shape, slope = INTERPOLATED[self.name]
        return slope(t) / shape(t)


class Linear(Noise):
    """σ linear from σ_min to σ_max."""

    def __init__(self, sigma_min: float, sigma_max: float):
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min + t * (self.sigma_max - self.sigma_min)

    def rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.sigma_max - self.sigma_min)


class Geometric(Linear):
    """log σ linear from log σ_min to log σ_max."""

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min ** (1 - t) * self.sigma_max**t

    def rate(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.log(self.sigma_max / self.sigma_min)


RANGED = {"linear": (Linear, 0.0, 10.0), "geometric": (Geometric, 1e-3, 1.0)}


def noise_schedule(
    name: str, *, epsilon: float = 1e-3, sigma_min: float | None = None, sigma_max: float | None = None
) -> Noise:
    """The schedule of that name; σ_min, σ_max (linear, geometric only) default to the published values.

    Raises SpecError for an unknown name or a range that cannot be.
    """
    if name in INTERPOLATED:
        if sigma_min is not None or sigma_max is not None:
            raise SpecError(
                f"noise '{name}' has no sigma_min or sigma_max; those belong to {', '.join(sorted(RANGED))}"
            )
        if not 0 <= epsilon < 1:
            raise SpecError(f"noise '{name}': epsilon is {epsilon}; it lies in [0, 1)")
        return Interpolated(name, epsilon)
    if name not in RANGED:
        raise SpecError(f"no noise schedule named '{name}'; known: {', '.join(sorted([*INTERPOLATED, *RANGED]))}")
    kind, low, high = RANGED[name]
    low, high = (low if sigma_min is None else sigma_min), (high if sigma_max is None else sigma_max)
    if not 0 <= low < high or (kind is Geometric and low == 0):
        raise SpecError(
            f"noise '{name}': sigma_min {low}, sigma_max {high}; 0 ≤ sigma_min < sigma_max (0 < for geometric)"
        )
    return kind(low, high)


def discretised(t: Tensor, grid: int) -> Tensor:
    """⌊t·T⌋/T + 1/T, where MDLM's code noises and conditions when T > 0: up to 1/T above t, (T+1)/T at 1."""
    return torch.floor(t * grid) / grid + 1 / grid
