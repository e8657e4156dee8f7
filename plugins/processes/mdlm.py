"""Masked diffusion with the noise schedules of MDLM."""

from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Draws
from di4c.errors import SpecError
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.noise import Noise, discretised, noise_schedule


class Mdlm(Absorbing):
    """Absorbing diffusion with total noise σ(t) of a published schedule (see noise.py); `sigma` gives it.

    epsilon = 1e-3 is what MDLM's checkpoints were trained with: at t = 1 one position in a thousand is still visible in
    training, though sampling starts from all masks. epsilon = 0 closes that gap.
    corrupt_grid: T > 0 noises x_0 at ⌊t·T⌋/T + 1/T where t is meant, as published code does (T = 1024); reverse steps are at t.
    """

    def __init__(
        self,
        data_states: int,
        *,
        noise: Literal["log-linear", "cosine", "cosine-squared", "linear", "geometric"] = "log-linear",
        epsilon: float = 1e-3,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        corrupt_grid: int = 0,
        mask_index: int | None = None,
    ):
        if corrupt_grid < 0:
            raise SpecError(f"process.corrupt_grid: {corrupt_grid}; it is a number of times, or 0 for none")
        schedule = noise_schedule(noise, epsilon=epsilon, sigma_min=sigma_min, sigma_max=sigma_max)
        super().__init__(data_states, mask_index=mask_index)
        self.schedule: Noise = schedule
        self.corrupt_grid = corrupt_grid

    def corrupt(self, x_0: Tensor, t: Tensor, draws: Draws) -> Tensor:
        if self.corrupt_grid:
            t = torch.where(t > 0, discretised(t, self.corrupt_grid), 0.0)
        return super().corrupt(x_0, t, draws)

    def sigma(self, t: Tensor) -> Tensor:
        """Total noise σ(t): the shape of t."""
        return self.schedule.sigma(t)
