"""The time t at which an objective looks at its examples."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from di4c.draws import Draws
from di4c.errors import SpecError


class TimeSampler(ABC):
    """How t is drawn. In a spec an objective's `time: {name: NAME, …}`, its options the constructor's; any objective may take one."""

    @abstractmethod
    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        """(t [B] float64 in [0, 1], (low, high): an interval that holds every t of the step's batch on every rank).

        step [B]: t − u, where the objective looks at an earlier time u too and t depends on it. Examples draw by their own
        (draws.uniform, …). The interval decides which networks are called, on all ranks alike: it may depend on what the ranks
        share (draws.scalar), never on an example's t or on the share of the batch.
        """

    @property
    def span(self) -> tuple[float, float]:
        """(low, high): an interval that holds every t that it draws at any step."""
        return 0.0, 1.0

    @property
    def longest_step(self) -> float:
        """The largest t − u for which it has times; a longer teacher step is refused."""
        return math.inf

    def on_grid(self, count: int) -> "TimeSampler":
        """The same sampler for one that moves every t up to ⌊t·count⌋/count + 1/count: its intervals must not straddle such a time.

        A sampler with one interval for all batches is the same.
        """
        return self


@dataclass(frozen=True)
class IntervalTimeSampler(TimeSampler):
    """Times in [low, high] ⊆ [0, 1], for time samplers to extend. Raises SpecError for another interval."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        if not 0.0 <= self.low < self.high <= 1.0:
            raise SpecError(f"times lie in [0, 1] with low < high; found low {self.low} and high {self.high}")

    @property
    def span(self) -> tuple[float, float]:
        return self.low, self.high
