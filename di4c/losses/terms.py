"""The terms of Di4C's loss: their weights and estimators, and the regions where they hold; the teacher's step."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Draws, LossEstimator
from di4c.errors import SpecError


@dataclass(frozen=True)
class TeacherStep:
    """How the teacher's step t − u is drawn; made of `substeps` equal steps of the teacher's sampler.

    constant: min(size, fraction·t). log-uniform: exp U[log smallest, log largest], at most fraction·t.
    """

    distribution: Literal["constant", "log-uniform"]
    size: float = 0.0
    smallest: float = 0.0
    largest: float = 0.0
    fraction: float = 1.0
    substeps: int = 1

    def __post_init__(self):
        good = self.size > 0 if self.distribution == "constant" else 0 < self.smallest <= self.largest
        if not good or self.substeps < 1 or not 0 < self.fraction <= 1:
            raise SpecError(
                f"a teacher step needs size > 0 (constant) or 0 < smallest ≤ largest (log-uniform); found {self}"
            )

    @property
    def longest(self) -> float:
        """The most that `draw` gives."""
        return self.size if self.distribution == "constant" else self.largest

    def draw(self, draws: Draws) -> Tensor:
        """The step before it is cut to fraction·t: [B] float64."""
        if self.distribution == "constant":
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


@dataclass(frozen=True)
class DataTerm:
    """weight·( a(t)·correlated part + marginal part ); a = gate."""

    weight: float
    estimator: LossEstimator
    gate: Gate


@dataclass(frozen=True)
class ConsistencyTerm:
    """weight·[min_time ≤ t]·( correlated part + marginal part ), on a random `probability` of the steps, weighted by its inverse.

    The target costs a few forward passes more; computing it on some steps only keeps the expected loss and saves them.
    """

    weight: float
    estimator: LossEstimator
    min_time: float = 0.0
    probability: float = 1.0

    def __post_init__(self):
        if not 0 < self.probability <= 1:
            raise SpecError(f"objective.consistency.probability: in (0, 1]; found {self.probability}")

    def holds(self, t: Tensor | float) -> Tensor:
        """Whether t lies in the consistency region: bool, the shape of t."""
        return t >= self.min_time

    def due(self, interval: tuple[float, float]) -> bool:
        """Whether some t of the interval may lie in it."""
        return self.holds(interval[1])


@dataclass(frozen=True)
class DistillationTerm:
    """weight·[t < max_time]·surrogate (strict; `max_time_inclusive` for ≤), or at times of its own if they are drawn."""

    weight: float
    max_time: float = 1.0
    max_time_inclusive: bool = False

    def holds(self, t: Tensor | float) -> Tensor:
        """Whether t lies in the distillation region: bool, the shape of t."""
        return t <= self.max_time if self.max_time_inclusive else t < self.max_time

    def due(self, interval: tuple[float, float]) -> bool:
        """Whether some t of the interval may lie in it."""
        return self.holds(interval[0])


@dataclass(frozen=True)
class MarginalTerm:
    """weight·Σ_d KL( p^ψ,d_{0|t} ‖ q̄^θ,d_{0|t} ) of the λ-averaged marginals q̄^θ = E_λ p^θ(·; λ): what has one position right in the mean."""

    weight: float
