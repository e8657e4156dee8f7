"""MaskGIT's confidence sampler, and its one-step form that makes x_u in the consistency loss."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from di4c.contracts import Denoiser, Draws, categorical
from di4c.contracts.extending import extending
from di4c.errors import SpecError
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.schedules import MaskSchedule
from di4c_plugins.samplers.guidance import GuidedSampler


def reveal_counts(schedule: MaskSchedule, tokens: int, steps: int) -> Tensor:
    """How many tokens each of n steps reveals: int64 [n], summing to `tokens`.

    Differences of round(γ(i/n)·tokens); a difference of 0 becomes 1, and the last step takes what is left over (which
    may then be negative). float32 and rounding half to even, since the published counts depend on both.
    """
    masked = (schedule.fraction(torch.linspace(0, 1, steps + 1)) * tokens).round().long()
    counts = masked[:-1] - masked[1:]
    counts = torch.where(counts == 0, 1, counts)
    counts[-1] += tokens - counts.sum()
    return counts


class MaskGITSampler(GuidedSampler):
    """Draws every masked token, then keeps the most confident ones (Chang et al. 2022, section 3.2).

    confidence = log p(drawn token) + τ·(1 − progress)·Gumbel noise ("linear" annealing), a uniform number ("random"),
    or log p alone ("none"); progress = i/(n − 1) in step i of n, and 0 when n = 1. τ is `gumbel_temperature`. The
    weight of classifier-free guidance grows as guidance·progress. The mask state is never drawn. Of the process it needs
    the schedule alone: any masked one will do.

    `step` is the form used in training: progress = r·n/(n − 1) with n = `horizon` (above 1, hence a negative noise
    scale, for r > (n − 1)/n), and ⌊(1 − γ(s))·D⌋ tokens are visible after it, as in Hayakawa et al. 2025's code.
    """

    called = "maskgit"

    @extending(GuidedSampler, before="horizon")
    def __init__(
        self,
        process: Absorbing,
        *,
        annealing: Literal["linear", "random", "none"] = "linear",
        gumbel_temperature: float = 4.5,
        horizon: int = 8,
        **of_guided: Any,
    ):
        super().__init__(process, **of_guided)
        if not 0 <= gumbel_temperature < math.inf or horizon < 1:
            raise SpecError(
                f"sampler maskgit: gumbel_temperature is {gumbel_temperature} and horizon {horizon}; "
                "a finite number ≥ 0 and a whole number ≥ 1 are needed"
            )
        self.annealing, self.gumbel_temperature, self.horizon = annealing, gumbel_temperature, horizon

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        visible = (x_t != self.process.mask_index).sum(1)
        wanted = ((1 - self.process.schedule.masked(s)) * x_t.shape[1]).long()
        progress = _progress(1 - t, self.horizon)
        log_p = self.guided(denoiser, x_t, t, cond, progress)
        return self._reveal(log_p, x_t, (wanted - visible).clamp_min(0), progress, draws)

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, x_1: Tensor, steps: int, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_0: [B, D]; the tokens revealed a step are those of `reveal_counts`, and the last step reveals all."""
        x = x_1
        counts = reveal_counts(self.process.schedule, x_1.shape[1], steps).tolist()
        for i, (time, count) in enumerate(zip(self.times(steps)[:-1], counts, strict=True)):
            masked = (x == self.process.mask_index).sum(1)
            if not masked.any():
                break
            t = torch.full((len(x),), time, dtype=torch.float64, device=x.device)
            revealed = masked if i == steps - 1 else masked.clamp_max(count)
            progress = _progress(1 - t, steps)
            log_p = self.guided(denoiser, x, t, cond, progress)
            x = self._reveal(log_p, x, revealed, progress, draws.child("step", i))
        return x

    def _reveal(self, log_p: Tensor, x_t: Tensor, count: Tensor, progress: Tensor, draws: Draws) -> Tensor:
        """x_t with its `count` [B] most confident draws of log p [B, D, S] in place of masks: [B, D]."""
        x_0 = categorical(log_p.exp(), draws.child("token").uniform(x_t.shape[1]))
        likely = log_p.gather(-1, x_0.unsqueeze(-1)).squeeze(-1).double()
        confidence = self._confidence(likely, progress, draws.child("order"))
        return torch.where(most_confident(confidence, x_t == self.process.mask_index, count), x_0, x_t)

    def _confidence(self, log_p: Tensor, progress: Tensor, draws: Draws) -> Tensor:
        """By what the drawn tokens are ordered: [B, D] float64, from their log-probabilities [B, D]."""
        if self.annealing == "none":
            return log_p
        uniform = draws.uniform(log_p.shape[1])
        if self.annealing == "random":
            return uniform
        gumbel = -(-uniform.clamp_min(2.0**-54).log()).log()
        return log_p + self.gumbel_temperature * (1 - progress)[:, None] * gumbel


def most_confident(confidence: Tensor, eligible: Tensor, count: Tensor) -> Tensor:
    """The `count` [B] eligible positions of highest confidence: bool [B, D] (all of them if there are fewer)."""
    order = confidence.masked_fill(~eligible, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    return eligible & (rank < count[:, None])


def _progress(r: Tensor, steps: int) -> Tensor:
    """r·n/(n − 1), which is i/(n − 1) at r = i/n; 0 for a single step, where the fraction is undefined."""
    return r * (steps / (steps - 1)) if steps > 1 else torch.zeros_like(r)
