"""Ancestral sampling."""

from torch import Tensor

from di4c.contracts import Denoiser, Draws, ForwardProcess, Sampler


class Ancestral(Sampler):
    """x_s ~ ∏_d Σ_{x_0^d} q(x_s^d | x_t^d, x_0^d) p^d(x_0^d | x_t): one draw from the process's posterior a step."""

    def __init__(self, process: ForwardProcess):
        self.process = process

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        return self.process.posterior(x_t, denoiser(x_t, t, cond), t, s, draws)
