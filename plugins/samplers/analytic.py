"""The analytic (Tweedie) sampler of score-based masked diffusion."""

import torch
from torch import Tensor

from di4c.contracts import Denoiser, Draws, Sampler, categorical
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.masked import need_mask

LARGEST_SIGMA = 36.0  # e^(−36) is float64's spacing at 1: beyond it everything is masked


class Analytic(Sampler):
    """x_s by the score's exact update over a finite step (Lou et al. 2024, Tweedie τ-leaping), as published.

    With SUBS log-probabilities, which sum to one, it has the law of the ancestral step; it is here because published
    figures are given for it, and it differs where a model's probabilities do not sum to one. The published code gives
    the network σ = 0, i.e. uses it with networks that ignore t. The mask is no clean state, and none is left at s = 0.
    """

    process: Absorbing

    def __init__(self, process: Absorbing):
        need_mask(process, "analytic")
        self.process = process

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        prediction, positions = denoiser(x_t, t, cond).without(self.process.mask_index), x_t.shape[1]
        is_mask = torch.arange(self.process.num_states, device=x_t.device) == self.process.mask_index
        sigma_t, sigma_s = self._sigma(t), self._sigma(s)
        x_s, uniform = x_t.flatten().clone(), draws.uniform(positions).flatten()
        for rows in prediction.chunks():
            example = rows // positions
            log_p = prediction.log_probs(rows)[:, 0].double()
            probs = analytic_probs(
                log_p, x_t.flatten()[rows], sigma_t[example], sigma_s[example], self.process.mask_index
            )
            left_over = is_mask & (s[example] == 0)[:, None]  # what rounding leaves of a probability that is 0
            x_s[rows] = categorical(probs.clamp_min(0).masked_fill(left_over, 0), uniform[rows])
        return x_s.view_as(x_t)

    def _sigma(self, t: Tensor) -> Tensor:
        """σ = −log(1 − m(t)): [B] float64."""
        return (-torch.log1p(-self.process.schedule.masked(t.double()))).clamp_max(LARGEST_SIGMA)


def analytic_probs(log_p: Tensor, x_t: Tensor, sigma_t: Tensor, sigma_s: Tensor, mask_index: int) -> Tensor:
    """The distribution of x_s given x_t, up to rounding normalised: [P, S].

    From log p(x_0 | x_t) [P, S], x_t [P], σ(t) and σ(s) [P], with δ = σ(t) − σ(s):
        score      s(v) = p(v)/(e^σ(t) − 1), s(mask) = 1 at masked positions; s(x_t) = 1, s(mask) = e^σ(t) − 1 at
        visible ones staggered  e^δ·s(v) + [v = mask]·(1 − e^δ)·Σ s
        times      e^−δ·[v = x_t] + [x_t = mask]·(1 − e^−δ)
    """
    masked = (x_t == mask_index)[:, None]
    states = torch.arange(log_p.shape[-1], device=log_p.device)
    is_mask, is_x = states == mask_index, states == x_t[:, None]
    grown, delta = torch.expm1(sigma_t)[:, None], (sigma_t - sigma_s)[:, None]
    score = torch.where(is_mask, torch.ones_like(log_p), log_p.exp() / grown)
    at_visible = torch.where(is_mask, grown, is_x.to(log_p))
    score = torch.where(masked, score, at_visible)
    staggered = delta.exp() * score + is_mask.to(log_p) * (-torch.expm1(delta)) * score.sum(-1, keepdim=True)
    transition = (-delta).exp() * is_x.to(log_p) + masked.to(log_p) * -torch.expm1(-delta)
    return staggered * transition
