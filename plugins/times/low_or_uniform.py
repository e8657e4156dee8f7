"""A time sampler with an atom at its low end."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Draws, IntervalTimeSampler
from di4c.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class LowOrUniform(IntervalTimeSampler):
    """`low` itself with probability `probability`, else U[low, high].

    The published pixel student is distilled so: at the least time every other time (Hayakawa et al. 2025, their code).
    """

    probability: float

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.probability <= 1:
            raise SpecError(f"probability is {self.probability}; it lies in [0, 1]")

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        u = torch.where(draws.child("low").uniform() < self.probability, 0.0, draws.uniform())
        return self.low + (self.high - self.low) * u, (self.low, self.high)
