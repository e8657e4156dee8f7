"""Absorbing diffusion in MaskGIT's time r = 1 − t, with the five mask schedules of its code bases."""

import math
from typing import Literal

import torch
from torch import Tensor

from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.schedules import MaskSchedule, Shape

RATIO_SCHEDULES: dict[str, tuple[Shape, Shape]] = {
    "root": (lambda r: 1 - r**0.5, lambda r: 0.5 * r**-0.5),
    "linear": (lambda r: 1 - r, torch.ones_like),
    "square": (lambda r: 1 - r**2, lambda r: 2 * r),
    # At r = 1 the cosine of a rounded π/2 is not 0, and may be negative.
    "cosine": (
        lambda r: torch.where(r < 1, torch.cos(r * math.pi * 0.5), torch.zeros_like(r)),
        lambda r: 0.5 * math.pi * torch.sin(r * math.pi * 0.5),
    ),
    "arccos": (lambda r: torch.arccos(r) / (math.pi * 0.5), lambda r: (1 - r**2) ** -0.5 / (math.pi * 0.5)),
}
"""γ(r), the masked fraction, and −γ′(r) = dm/dt, of r = 1 − t, by name; γ(0) = 1, γ(1) = 0 (Chang et al. 2022, 3.3)."""


class RatioSchedule(MaskSchedule):
    """A schedule of RATIO_SCHEDULES by its name."""

    def __init__(self, name: str):
        self.name = name

    def masked(self, t: Tensor) -> Tensor:
        return self.fraction(1 - t)

    def fraction(self, r: Tensor) -> Tensor:
        return RATIO_SCHEDULES[self.name][0](r)

    def log_rate(self, t: Tensor) -> Tensor:
        return RATIO_SCHEDULES[self.name][1](1 - t) / self.fraction(1 - t)


class MaskGITProcess(Absorbing):
    """q(x_t^d = mask | x_0^d) = γ(1 − t), the mask being the last state; γ by name (the published model's: arccos)."""

    def __init__(
        self, data_states: int, *, schedule: Literal["root", "linear", "square", "cosine", "arccos"] = "arccos"
    ):
        super().__init__(data_states)
        self.schedule = RatioSchedule(schedule)
