"""Temperature and top-p: how samples are drawn from p(x_0 | x_t) where that is not as the model says."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.kernels.rows import LOG_ZERO
from di4c.whole import positive_number


@dataclass(frozen=True)
class Tempering:
    """p ↦ q ∝ p^{1/T}, then q's nucleus: the fewest most likely states whose probability is at least top_p (Holtzman et al. 2020).

    Called with log p [..., S], normalised: log q [..., S], LOG_ZERO where q is zero. States of probability zero stay so at any T.
    Of states that are equally likely those of lower index come first. Raises SpecError for a T that is no positive finite number, or
    a top_p outside (0, 1].
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self):
        for key, most in (("temperature", math.inf), ("top_p", 1.0)):
            object.__setattr__(self, key, positive_number(getattr(self, key), key, most))

    @classmethod
    def of(cls, temperature: float, top_p: float) -> "Tempering | None":
        """The tempering, or None where it changes nothing."""
        made = cls(temperature, top_p)
        return None if made == cls() else made

    def __call__(self, log_p: Tensor) -> Tensor:
        impossible = log_p <= LOG_ZERO / 2
        scaled = (log_p - log_p.amax(-1, keepdim=True)).double() / self.temperature
        log_q = scaled.masked_fill(impossible, LOG_ZERO).clamp_min(LOG_ZERO).log_softmax(-1)
        if self.top_p < 1:
            log_q = log_q.masked_fill(~self._nucleus(log_q), LOG_ZERO).log_softmax(-1)
        return log_q.to(log_p)

    def _nucleus(self, log_q: Tensor) -> Tensor:
        """The states that are kept: bool, shape of log q."""
        likely, order = log_q.sort(dim=-1, descending=True, stable=True)
        q = likely.exp()
        before = q.cumsum(-1) - q  # of the first state exactly 0: one is always kept
        return torch.zeros_like(log_q, dtype=torch.bool).scatter(-1, order, ~(before >= self.top_p))  # nan is kept
