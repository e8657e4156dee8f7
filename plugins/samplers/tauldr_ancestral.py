"""Ancestral sampling of discretised processes, as in the paper's pixel experiments."""

from typing import Literal

from torch import Tensor

from di4c.contracts import Denoiser, Draws, ForwardProcess, Prediction
from di4c_plugins.samplers.min_time import MinTimeSampler


class TauLDRAncestral(MinTimeSampler):
    """Posterior steps on linspace(1, min_time, n), and x_0 by argmax at the last (Hayakawa et al. 2025)."""

    def __init__(self, process: ForwardProcess, *, min_time: float = 0.01, final: Literal["argmax", "draw"] = "argmax"):
        super().__init__(process, min_time=min_time, final=final)

    def noisy(
        self, prediction: Prediction, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None,
        draws: Draws,
    ) -> Tensor:  # fmt: skip
        return self.process.posterior(x_t, prediction, t, s, draws)
