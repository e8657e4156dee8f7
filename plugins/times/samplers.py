"""Samplers of the time t at which an objective looks at its examples."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from di4c.contracts import Draws, IntervalTimeSampler, TimeSampler, placed
from di4c.errors import SpecError

GOLDEN_RATIO = (5**0.5 - 1) / 2


class UniformTime(IntervalTimeSampler):
    """U[low, high], independent examples."""

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        return self.low + (self.high - self.low) * draws.uniform(), (self.low, self.high)


class LowDiscrepancyTime(IntervalTimeSampler):
    """U[low, high], a shifted Kronecker sequence over the examples: lower variance than independent draws.

    The idea is Kingma et al. 2021's. Equidistributed over any run of examples; by global index, so ranks agree without talking.
    """

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        index = torch.arange(draws.first, draws.first + draws.count, device=draws.device)
        u = (draws.child("shift").scalar() + index.double() * GOLDEN_RATIO) % 1.0
        return self.low + (self.high - self.low) * u, (self.low, self.high)


class TimeAboveStep(IntervalTimeSampler):
    """U[low + step, high], so that u = t − step ≥ low (Hayakawa et al. 2025, on pixels). No step is longer than high − low."""

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        return self.low + step + (self.high - self.low - step) * draws.uniform(), (self.low, self.high)

    @property
    def longest_step(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class TimeGrid(TimeSampler):
    """Uniform on `points`."""

    points: list[float]

    def __post_init__(self):
        if not self.points or not all(0.0 <= t <= 1.0 for t in self.points):
            raise SpecError(f"a grid of times needs points in [0, 1], e.g. [0.25, 0.5, 0.75, 1.0]; found {self.points}")

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        points = placed(torch.tensor(self.points, dtype=torch.float64), draws.device)
        return points[draws.integers(len(self.points))], self.span

    @property
    def span(self) -> tuple[float, float]:
        return min(self.points), max(self.points)


@dataclass(frozen=True, kw_only=True)
class SplitTime(IntervalTimeSampler):
    """With probability `probability` t ~ U[low, split), else U[split, high); all examples of a batch are on one side.

    Distillation (below the split) and consistency (above) then need not both be computed. grid: t will be moved up to the next
    of so many times (0: it will not). Times below the split that are moved past it form batches of their own.
    """

    split: float
    probability: float
    grid: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not (self.low <= self.split < self.high and 0 <= self.probability <= 1):
            raise SpecError(f"a split of times lies in [low, high), its probability in [0, 1]; found {self}")

    def on_grid(self, count: int) -> TimeSampler:
        return replace(self, grid=count)

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        low, high = self._side(draws)
        return low + (high - low) * draws.uniform(), (low, high)

    def _side(self, draws: Draws) -> tuple[float, float]:
        """The batch's interval. A side stays strictly below its end, so that its t is never in the other region."""
        if draws.child("side").scalar() >= self.probability:
            return self.split, self.high
        edge = max(self.low, math.floor(self.split * self.grid) / self.grid) if self.grid else self.split
        if edge < self.split and draws.child("cell").scalar() < (self.split - edge) / (self.split - self.low):
            return edge, math.nextafter(self.split, 0.0)
        return self.low, math.nextafter(edge, 0.0)
