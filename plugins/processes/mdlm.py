"""Masked diffusion with the noise schedules of MDLM."""

from torch import Tensor

from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.noise import noise_schedule


class Mdlm(Absorbing):
    """Absorbing diffusion with total noise σ(t) of a published schedule (see noise.py); `sigma` gives it.

    epsilon = 1e-3 is what MDLM's checkpoints were trained with: at t = 1 one position in a thousand is still visible in
    training, though sampling starts from all masks. epsilon = 0 closes that gap.
    """

    def __init__(
        self,
        data_states: int,
        *,
        noise: str = "log-linear",
        epsilon: float = 1e-3,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        mask_index: int | None = None,
    ):
        super().__init__(data_states, mask_index=mask_index)
        self.schedule = noise_schedule(noise, epsilon=epsilon, sigma_min=sigma_min, sigma_max=sigma_max)

    def sigma(self, t: Tensor) -> Tensor:
        """Total noise σ(t): the shape of t."""
        return self.schedule.sigma(t)
