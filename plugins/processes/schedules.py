"""Mask schedules m(t): the probability that a position is masked at time t, m(0) = 0, m(1) = 1 (or nearly)."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

Shape = Callable[[Tensor], Tensor]
"""A function of time in a table of schedules: the shape and dtype of its argument."""


class MaskSchedule(ABC):
    """m(t) and its logarithmic rate, for t [B] in [0, 1]."""

    @abstractmethod
    def masked(self, t: Tensor) -> Tensor:
        """m(t): [B]."""

    def fraction(self, r: Tensor) -> Tensor:
        """γ(r) = m(1 − r), in the time of confidence samplers, which runs from 0 to 1: the shape of r."""
        return self.masked(1 - r)

    @abstractmethod
    def log_rate(self, t: Tensor) -> Tensor:
        """m′(t)/m(t), the weight of the bound: [B]."""


class LogLinear(MaskSchedule):
    """m(t) = t, i.e. σ(t) = −log(1 − t) (MDLM's log-linear schedule; Sahoo et al. 2024)."""

    def masked(self, t: Tensor) -> Tensor:
        return t

    def log_rate(self, t: Tensor) -> Tensor:
        return 1 / t


SCHEDULES: dict[str, type[MaskSchedule]] = {"log-linear": LogLinear}
