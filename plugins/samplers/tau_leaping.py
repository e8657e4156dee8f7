"""Tau-leaping, with and without corrector steps (Campbell et al. 2022)."""

from typing import Any

import torch
from torch import Tensor

from di4c.contracts import Draws, Prediction
from di4c.contracts.extending import extending
from di4c.errors import SpecError
from di4c_plugins.processes.ctmc import ContinuousTimeChain
from di4c_plugins.samplers.min_time import Look, MinTimeSampler
from di4c_plugins.samplers.poisson import poisson

POSITIONS_AT_A_TIME = 64
"""Fixed, so that the random numbers of a position do not depend on the batch size."""


class TauLeaping(MinTimeSampler):
    """Jumps at the reverse rates of x_t throughout (s, t]: the number of jumps to each state y is Poisson.

        x_s = x_t + Σ_y (y − x_t)·K_y,   K_y ~ Poisson((t − s)·R̂_t(x_t, y)),   clamped to the states

    ordered: states are levels, and jumps add up; otherwise a position makes its jump only if it has exactly one. n
    evaluations are n − 1 leaps and the final one (the published sampler leaps once more, to t = 0, before its argmax).
    """

    process: ContinuousTimeChain

    @extending(MinTimeSampler, before="ordered")
    def __init__(self, process: ContinuousTimeChain, *, ordered: bool = True, **of_min_time: Any):
        if not isinstance(process, ContinuousTimeChain):
            raise SpecError(
                f"sampler: tau-leaping needs a process with jump rates, and {type(process).__name__} has none"
            )
        super().__init__(process, **of_min_time)
        self.ordered = ordered

    def noisy(self, prediction: Prediction, look: Look, x_t: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        return self.leap(prediction, x_t, t, t - s, draws)

    def leap(
        self, prediction: Prediction, x: Tensor, t: Tensor, duration: Tensor, draws: Draws, *, forward: bool = False
    ) -> Tensor:
        """x after `duration` [B] at the reverse rates of time t [B], the forward rates added if `forward`: [B, D]."""
        q, moved = self.process.tables(t), torch.empty_like(x)
        for start in range(0, x.shape[1], POSITIONS_AT_A_TIME):
            block = slice(start, start + POSITIONS_AT_A_TIME)
            here = x[:, block]
            rates = self.process.reverse_rates(q, here, self.process.log_probs_at(prediction, block).exp(), t)
            if forward:
                rates = rates + self.process.forward_rates(here, t)
            uniform = draws.child("jumps", start).uniform(here.shape[1], self.process.num_states)
            moved[:, block] = self._moved(here, poisson(rates * duration.double()[:, None, None], uniform))
        return moved

    def _moved(self, x: Tensor, jumps: Tensor) -> Tensor:
        """x [B, d] after jumps [B, d, S], the number to each state."""
        shift = (jumps * (torch.arange(jumps.shape[-1], device=x.device) - x[..., None])).sum(-1)
        if not self.ordered:
            shift = torch.where(jumps.sum(-1) == 1, shift, 0)
        return (x + shift).clamp(0, jumps.shape[-1] - 1)


class PredictorCorrector(TauLeaping):
    """Tau-leaping, each leap that starts at or below `corrector_entry_time` followed by `corrector_steps` correctors.

    A corrector leaps for corrector_scale·(t − s) at the sum of forward and reverse rates of time s, which leaves the
    law at s as it is. n steps cost n evaluations and those of the correctors.
    """

    @extending(TauLeaping)
    def __init__(
        self,
        process: ContinuousTimeChain,
        *,
        corrector_steps: int,
        corrector_scale: float,
        corrector_entry_time: float,
        **of_tau_leaping: Any,
    ):
        super().__init__(process, **of_tau_leaping)
        self.corrector_steps, self.corrector_scale = corrector_steps, corrector_scale
        self.corrector_entry_time = corrector_entry_time
        self.evaluations = 1 + corrector_steps

    def noisy(self, prediction: Prediction, look: Look, x_t: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        x = super().noisy(prediction, look, x_t, t, s, draws.child("predictor"))
        late = t <= self.corrector_entry_time
        for k in range(self.corrector_steps if bool(late.any()) else 0):
            duration = self.corrector_scale * (t - s)
            corrected = self.leap(look(x, s), x, s, duration, draws.child("corrector", k), forward=True)
            x = torch.where(late[:, None], corrected, x)
        return x
