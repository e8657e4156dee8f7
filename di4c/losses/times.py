"""The law of the teacher's step t − u, and the weight a(t)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Draws
from di4c.errors import SpecError


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
