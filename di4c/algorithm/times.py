"""The laws of the time t at which the student is trained, of the teacher's step t − u, and the weight a(t)."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Draws
from di4c.errors import SpecError

GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class TimeLaw:
    """How t is drawn.

    uniform: U[low, high], independent examples.
    low-discrepancy: U[low, high], a shifted Kronecker sequence over the examples (lower variance than independent draws;
        the idea is Kingma et al. 2021's).
    above-step: U[low + step, high], so that u = t − step ≥ low (tauLDR's).
    grid: uniform on `points`.
    low-or-uniform: `low` itself with probability `probability`, else U[low, high].
    split: with probability `probability` t ~ U[low, split), else U[split, high); all examples of a batch on one side, so that
        distillation (below) and consistency (above) need not both be computed.

    resolution: T > 0 moves every t up to ⌊t·T⌋/T + 1/T, at most 1, as models of T discrete times do.
    """

    law: Literal["uniform", "low-discrepancy", "above-step", "grid", "low-or-uniform", "split"]
    low: float = 0.0
    high: float = 1.0
    points: list[float] = field(default_factory=list)
    split: float = 0.0
    probability: float = 0.0
    resolution: int = 0

    def __post_init__(self):
        values = [self.low, self.high, self.split, *self.points]
        if not all(0.0 <= v <= 1.0 for v in values) or self.low >= self.high or self.resolution < 0:
            raise SpecError(f"times lie in [0, 1] with low < high; found {self}")
        if self.law == "grid" and not self.points:
            raise SpecError("time law 'grid' needs `points`, e.g. [0.25, 0.5, 0.75, 1.0]")

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        """(t [B] float64, an interval that holds every t of the batch on every rank); step [B] is t − u where t depends on it."""
        t, (low, high) = self._continuous(draws, step)
        if not self.resolution:
            return t, (low, high)
        first, last = self._moved(torch.tensor([low, high], dtype=torch.float64)).tolist()
        return self._moved(t), (first, last)

    def _moved(self, t: Tensor) -> Tensor:
        """t moved up to the next of T times: the shape of t."""
        return ((t * self.resolution).floor() / self.resolution + 1 / self.resolution).clamp_max(1.0)

    def _continuous(self, draws: Draws, step: Tensor | float) -> tuple[Tensor, tuple[float, float]]:
        """As `sample`, before t is moved."""
        low, high = self._interval(draws)
        if self.law == "grid":
            points = torch.tensor(self.points, dtype=torch.float64, device=draws.device)
            return points[draws.integers(len(self.points))], (min(self.points), max(self.points))
        u = self._kronecker(draws) if self.law == "low-discrepancy" else draws.uniform()
        if self.law == "low-or-uniform":
            u = torch.where(draws.child("low").uniform() < self.probability, 0.0, u)
        if self.law == "above-step":
            return low + step + (high - low - step) * u, (low, high)
        return low + (high - low) * u, (low, high)

    def _kronecker(self, draws: Draws) -> Tensor:
        """Equidistributed over any run of examples; by global index, so ranks agree without talking."""
        index = torch.arange(draws.first, draws.first + draws.count, device=draws.device)
        return (draws.child("shift").scalar() + index.double() * GOLDEN_RATIO) % 1.0

    def _interval(self, draws: Draws) -> tuple[float, float]:
        if self.law != "split":
            return self.low, self.high
        below = draws.child("side").scalar() < self.probability
        # The lower side stays strictly below the split, so that its t is never in the other region.
        return (self.low, math.nextafter(self.split, 0.0)) if below else (self.split, self.high)


@dataclass(frozen=True)
class StepLaw:
    """How the teacher's step t − u is drawn; made of `substeps` equal steps of the teacher's sampler.

    constant: min(size, fraction·t). log-uniform: exp U[log smallest, log largest], at most fraction·t.
    """

    law: Literal["constant", "log-uniform"]
    size: float = 0.0
    smallest: float = 0.0
    largest: float = 0.0
    fraction: float = 1.0
    substeps: int = 1

    def __post_init__(self):
        good = self.size > 0 if self.law == "constant" else 0 < self.smallest <= self.largest
        if not good or self.substeps < 1 or not 0 < self.fraction <= 1:
            raise SpecError(f"a teacher step needs size > 0 (constant) or 0 < smallest ≤ largest (log-uniform); found {self}")

    def draw(self, draws: Draws) -> Tensor:
        """The step before it is cut to fraction·t: [B] float64."""
        if self.law == "constant":
            return torch.full((draws.count,), self.size, dtype=torch.float64, device=draws.device)
        return self.smallest * (self.largest / self.smallest) ** draws.uniform()

    def earlier(self, t: Tensor, step: Tensor) -> Tensor:
        """u = t − min(step, fraction·t): [B]; never below 0."""
        return t - torch.minimum(step, self.fraction * t)


@dataclass(frozen=True)
class Gate:
    """a(t), the weight of the correlated part of the data term (Hayakawa et al. 2025, their α_t).

    sigmoid: scale·σ(20(t − ½)). linear: scale·t. constant: scale.
    """

    shape: Literal["sigmoid", "linear", "constant"]
    scale: float

    def __call__(self, t: Tensor) -> Tensor:
        """a(t): the shape of t."""
        if self.shape == "sigmoid":
            return self.scale * torch.sigmoid(20.0 * (t - 0.5))
        return self.scale * (t if self.shape == "linear" else torch.ones_like(t))
