"""Ancestral sampling of discretised processes, as in the paper's pixel experiments."""

from torch import Tensor

from di4c.contracts import Draws, Prediction
from di4c_plugins.samplers.min_time import Look, MinTimeSampler


class TauLDRAncestral(MinTimeSampler):
    """Posterior steps on linspace(1, min_time, n), and x_0 by argmax at the last (Hayakawa et al. 2025)."""

    def noisy(self, prediction: Prediction, look: Look, x_t: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        return self.process.posterior(x_t, prediction, t, s, draws)
