"""Absorbing diffusion in MaskGIT's time r = 1 − t, with the five mask schedules of its code bases."""

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.schedules import MaskSchedule


class RatioSchedule(MaskSchedule):
    """A schedule given as a function γ of r = 1 − t, γ(0) = 1, γ(1) = 0 (Chang et al. 2022, section 3.3)."""

    @abstractmethod
    def fraction(self, r: Tensor) -> Tensor:
        """γ(r), the masked fraction: the shape and dtype of r."""

    @abstractmethod
    def slope(self, r: Tensor) -> Tensor:
        """−γ′(r) = dm/dt: the shape of r."""

    def masked(self, t: Tensor) -> Tensor:
        return self.fraction(1 - t)

    def log_rate(self, t: Tensor) -> Tensor:
        return self.slope(1 - t) / self.fraction(1 - t)


class Root(RatioSchedule):
    """γ(r) = 1 − √r."""

    def fraction(self, r: Tensor) -> Tensor:
        return 1 - r**0.5

    def slope(self, r: Tensor) -> Tensor:
        return 0.5 * r**-0.5


class Linear(RatioSchedule):
    """γ(r) = 1 − r."""

    def fraction(self, r: Tensor) -> Tensor:
        return 1 - r

    def slope(self, r: Tensor) -> Tensor:
        return torch.ones_like(r)


class Square(RatioSchedule):
    """γ(r) = 1 − r²."""

    def fraction(self, r: Tensor) -> Tensor:
        return 1 - r**2

    def slope(self, r: Tensor) -> Tensor:
        return 2 * r


class Cosine(RatioSchedule):
    """γ(r) = cos(πr/2)."""

    def fraction(self, r: Tensor) -> Tensor:
        # At r = 1 the cosine of a rounded π/2 is not 0, and may be negative.
        return torch.where(r < 1, torch.cos(r * math.pi * 0.5), torch.zeros_like(r))

    def slope(self, r: Tensor) -> Tensor:
        return 0.5 * math.pi * torch.sin(r * math.pi * 0.5)


class Arccos(RatioSchedule):
    """γ(r) = (2/π)·arccos r."""

    def fraction(self, r: Tensor) -> Tensor:
        return torch.arccos(r) / (math.pi * 0.5)

    def slope(self, r: Tensor) -> Tensor:
        return (1 - r**2) ** -0.5 / (math.pi * 0.5)


RATIO_SCHEDULES: dict[str, type[RatioSchedule]] = {
    "root": Root,
    "linear": Linear,
    "square": Square,
    "cosine": Cosine,
    "arccos": Arccos,
}


class MaskGITProcess(Absorbing):
    """q(x_t^d = mask | x_0^d) = γ(1 − t), the mask being the last state; γ by name (the published model's: arccos)."""

    schedule: RatioSchedule

    def __init__(
        self, data_states: int, *, schedule: Literal["root", "linear", "square", "cosine", "arccos"] = "arccos"
    ):
        super().__init__(data_states)
        self.schedule = RATIO_SCHEDULES[schedule]()
