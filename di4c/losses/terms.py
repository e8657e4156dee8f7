"""The three terms of Di4C's loss: their weights and estimators, and the times at which they hold."""

from dataclasses import dataclass

from torch import Tensor

from di4c.contracts import LossEstimator
from di4c.errors import SpecError
from di4c.losses.times import Gate


@dataclass(frozen=True)
class DataTerm:
    """weight·( a(t)·correlated part + marginal part ); a = gate."""

    weight: float
    estimator: LossEstimator
    gate: Gate


@dataclass(frozen=True)
class ConsistencyTerm:
    """weight·[above ≤ t]·( correlated part + marginal part ), on a random `probability` of the steps, weighted by its inverse.

    The target costs a few forward passes more; computing it on some steps only keeps the expected loss and saves them.
    """

    weight: float
    estimator: LossEstimator
    above: float = 0.0
    probability: float = 1.0

    def __post_init__(self):
        if not 0 < self.probability <= 1:
            raise SpecError(f"objective.consistency.probability: in (0, 1]; found {self.probability}")

    def holds(self, t: Tensor) -> Tensor:
        """Whether t lies in the consistency region: bool, the shape of t."""
        return t >= self.above

    def due(self, interval: tuple[float, float]) -> bool:
        """Whether some t of the interval may lie in it."""
        return interval[1] >= self.above


@dataclass(frozen=True)
class DistillationTerm:
    """weight·[t < below]·surrogate (strict; `below_inclusive` for ≤), or at times of its own if they are drawn."""

    weight: float
    below: float = 1.0
    below_inclusive: bool = False

    def holds(self, t: Tensor) -> Tensor:
        """Whether t lies in the distillation region: bool, the shape of t."""
        return t <= self.below if self.below_inclusive else t < self.below

    def due(self, interval: tuple[float, float]) -> bool:
        """Whether some t of the interval may lie in it."""
        return interval[0] <= self.below if self.below_inclusive else interval[0] < self.below
