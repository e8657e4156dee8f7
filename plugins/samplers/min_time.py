"""Sampling that stops at a least time, where x_0 is taken from the denoiser."""

from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Denoiser, Draws, ForwardProcess, Sampler
from di4c.errors import SpecError


class MinTimeSampler(Sampler):
    """n network evaluations: at the n times linspace(1, min_time, n), the last of which gives x_0.

    final: how x_0 is taken from p(x_0 | x_{min_time}), "argmax" at every position (published; it removes the last
    noise) or by a "draw". A subclass says how a step from t to s > 0 is made.
    """

    def __init__(self, process: ForwardProcess, *, min_time: float, final: Literal["argmax", "draw"]):
        if not 0 < min_time < 1:
            raise SpecError(f"sampler: min_time is {min_time}; it lies between 0 and 1")
        self.process, self.min_time, self.final = process, min_time, final

    def times(self, steps: int) -> list[float]:
        """The grid 1, …, min_time, 0 of n + 1 values; 1, 0 for a single step."""
        return [*torch.linspace(1, self.min_time, steps, dtype=torch.float64).tolist(), 0.0]

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_s; where s = 0, x_0 by the final rule. A batch has s = 0 for all examples or for none."""
        if bool((s == 0).any()):
            return self.clean(denoiser, x_t, t, cond, draws)
        return self.noisy(denoiser, x_t, t, s, cond, draws)

    def noisy(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_s for s > 0: [B, D]."""
        raise NotImplementedError

    def clean(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_0 by the final rule: [B, D]."""
        prediction = denoiser(x_t, t, cond)
        if self.final == "draw":
            return self.process.posterior(x_t, prediction, t, torch.zeros_like(t), draws)
        x_0 = x_t.flatten().clone()
        for rows in prediction.chunks():
            x_0[rows] = prediction.log_probs(rows)[:, 0].argmax(-1)
        return x_0.view_as(x_t)
