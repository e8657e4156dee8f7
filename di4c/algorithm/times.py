"""Laws of the time t at which the student is trained, of the teacher's step t − u, and the weight a(t)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Draws, IntervalLaw, TimeLaw, placed
from di4c.errors import SpecError

GOLDEN_RATIO = (5**0.5 - 1) / 2


class UniformTime(IntervalLaw):
    """U[low, high], independent examples."""

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        return self.low + (self.high - self.low) * draws.uniform(), (self.low, self.high)


class LowDiscrepancyTime(IntervalLaw):
    """U[low, high], a shifted Kronecker sequence over the examples: lower variance than independent draws.

    The idea is Kingma et al. 2021's. Equidistributed over any run of examples; by global index, so ranks agree without talking.
    """

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        index = torch.arange(draws.first, draws.first + draws.count, device=draws.device)
        u = (draws.child("shift").scalar() + index.double() * GOLDEN_RATIO) % 1.0
        return self.low + (self.high - self.low) * u, (self.low, self.high)


class TimeAboveStep(IntervalLaw):
    """U[low + step, high], so that u = t − step ≥ low (Hayakawa et al. 2025, on pixels)."""

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        return self.low + step + (self.high - self.low - step) * draws.uniform(), (self.low, self.high)


@dataclass(frozen=True)
class TimeGrid(TimeLaw):
    """Uniform on `points`."""

    points: list[float]

    def __post_init__(self):
        if not self.points or not all(0.0 <= t <= 1.0 for t in self.points):
            raise SpecError(f"a grid of times needs points in [0, 1], e.g. [0.25, 0.5, 0.75, 1.0]; found {self.points}")

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        points = placed(torch.tensor(self.points, dtype=torch.float64), draws.device)
        return points[draws.integers(len(self.points))], (min(self.points), max(self.points))


@dataclass(frozen=True, kw_only=True)
class SplitTime(IntervalLaw):
    """With probability `probability` t ~ U[low, split), else U[split, high); all examples of a batch are on one side.

    Distillation (below the split) and consistency (above) then need not both be computed.
    """

    split: float
    probability: float

    def __post_init__(self):
        super().__post_init__()
        if not (self.low <= self.split < self.high and 0 <= self.probability <= 1):
            raise SpecError(f"a split of times lies in [low, high), its probability in [0, 1]; found {self}")

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        below = draws.child("side").scalar() < self.probability
        # The lower side stays strictly below the split, so that its t is never in the other region.
        low, high = (self.low, math.nextafter(self.split, 0.0)) if below else (self.split, self.high)
        return low + (high - low) * draws.uniform(), (low, high)


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
