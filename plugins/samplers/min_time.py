"""Sampling that stops at a least time, where x_0 is taken from the denoiser."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Denoiser, Draws, ForwardProcess, Prediction, Sampler
from di4c.errors import SpecError

Look = Callable[[Tensor, Tensor], Prediction]
"""(x [B, D], t [B]) → the prediction there, labels as given."""


class MinTimeSampler(Sampler):
    """n network evaluations: at the n times linspace(1, min_time, n), the last of which gives x_0.

    final: how x_0 is taken from p(x_0 | x_{min_time}), "argmax" at every position (published; it removes the last
    noise) or by a "draw". A subclass says how a step from t to s > 0 is made.
    What becomes of an example does not depend on the rest of its batch.
    """

    def __init__(self, process: ForwardProcess, *, min_time: float = 0.01, final: Literal["argmax", "draw"] = "argmax"):
        if not 0 < min_time < 1:
            raise SpecError(f"sampler: min_time is {min_time}; it lies between 0 and 1")
        self.process, self.min_time, self.final = process, min_time, final

    def times(self, steps: int) -> list[float]:
        """The grid 1, …, min_time, 0 of n + 1 values; 1, 0 for a single step."""
        return [*torch.linspace(1, self.min_time, steps, dtype=torch.float64).tolist(), 0.0]

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_s; x_0 by the final rule for the examples with s = 0, whatever s the others have: [B, D]."""
        prediction, ends = denoiser(x_t, t, cond), s == 0
        ending = int(ends.sum())
        if ending == len(s):
            return self.clean(prediction, x_t, t, draws)
        look = lambda x, time: denoiser(x, time, cond)
        x_s = self.noisy(prediction, look, x_t, t, torch.where(ends, t, s) if ending else s, draws)
        return torch.where(ends[:, None], self.clean(prediction, x_t, t, draws), x_s) if ending else x_s

    def noisy(self, prediction: Prediction, look: Look, x_t: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        """x_s for s > 0, from the prediction at (x_t, t): [B, D]; look: for further ones. Examples with s = t only keep others company."""
        raise NotImplementedError

    def clean(self, prediction: Prediction, x_t: Tensor, t: Tensor, draws: Draws) -> Tensor:
        """x_0 by the final rule: [B, D]. Under a process with a mask only masks are replaced, and by none."""
        if self.final == "draw":
            return self.process.posterior(x_t, prediction, t, torch.zeros_like(t), draws)
        mask, x_0 = self.process.mask_index, x_t.flatten().clone()
        if mask is not None:
            prediction = prediction.without(mask)
        for rows in prediction.chunks(where=None if mask is None else x_t == mask):
            x_0[rows] = prediction.log_probs(rows)[:, 0].argmax(-1)
        return x_0.view_as(x_t)
