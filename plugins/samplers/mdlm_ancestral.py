"""MDLM's ancestral sampler: cached predictions, a last pass that leaves no mask, and the reference's Gumbel draws."""

from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Denoiser, Draws, Prediction, Sampler
from di4c.errors import SpecError
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.masked import need_mask

GUMBEL_EPSILON = 1e-10


class MdlmAncestral(Sampler):
    """n steps on linspace(1, end, n + 1), then, if a mask is left, one more pass that fills it (Sahoo et al. 2024).

    cached: keep the prediction while no token of the batch changes. Exact for networks that ignore t, a student's
    included:
        which positions are revealed does not depend on the prediction, so a λ that has revealed nothing is still fresh.
    final: how the last pass fills masks, by argmax (published) or by a draw.
    draw: "exact" draws by float64 inversion; "gumbel" is the published float32 form, which truncates small
        probabilities and so lowers the temperature (Zheng et al. 2024), for comparison with published figures only.
    """

    process: Absorbing

    def __init__(
        self,
        process: Absorbing,
        *,
        cached: bool = False,
        final: Literal["argmax", "draw"] = "argmax",
        draw: Literal["exact", "gumbel"] = "exact",
        end: float = 1e-5,
    ):
        need_mask(process, "mdlm-ancestral")
        if not 0 <= end < 1:
            raise SpecError(f"sampler mdlm-ancestral: end is {end}; it lies in [0, 1)")
        self.process, self.cached, self.final, self.draw, self.end = process, cached, final, draw, end
        self.keeps_predictions = cached

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        return self._step(denoiser(x_t, t, cond), x_t, t, s, draws)

    def times(self, steps: int) -> list[float]:
        """The grid 1 = t_n > … > t_1 > 0; `sample` itself ends its last step at `end` and fills what is left."""
        return [*torch.linspace(1, self.end, steps + 1, dtype=torch.float64).tolist()[:-1], 0.0]

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, x_1: Tensor, steps: int, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_0: [B, D] without masks; tokens that are visible in x_1 (a prompt) stay as they are."""
        grid = torch.linspace(1, self.end, steps + 1, dtype=torch.float64, device=x_1.device)
        x, prediction = x_1, None
        for n in range(steps):
            t, s = grid[n].expand(len(x)), grid[n + 1].expand(len(x))
            if prediction is None:
                prediction = denoiser(x, t, cond)
            x_s = self._step(prediction, x, t, s, draws.child("step", n))
            if not self.cached or not torch.equal(x_s, x):
                prediction = None
            x = x_s
        if (x == self.process.mask_index).any():
            prediction = denoiser(x, grid[-1].expand(len(x)), cond) if prediction is None else prediction
            x = self._fill(prediction, x, draws.child("final"))
        return x

    def _step(self, prediction: Prediction, x_t: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        if self.draw == "exact":
            return self.process.posterior(x_t, prediction, t, s, draws)
        positions, masked, mask = x_t.shape[1], self.process.schedule.masked, self.process.mask_index
        prediction = prediction.without(mask)
        x_s = x_t.flatten().clone()
        uniform = draws.uniform(positions, self.process.num_states).float().flatten(0, 1)
        m_t, m_s = masked(t).float(), masked(s).float()
        for rows in prediction.chunks(where=x_t == mask):
            example = rows // positions
            q_xs = reverse_probs(prediction.log_probs(rows)[:, 0], m_t[example], m_s[example], mask)
            x_s[rows] = gumbel_argmax(q_xs, uniform[rows])
        return x_s.view_as(x_t)

    def _fill(self, prediction: Prediction, x: Tensor, draws: Draws) -> Tensor:
        """x with its masks filled: [B, D]."""
        if self.final == "draw":
            now = torch.full((len(x),), max(self.end, 1e-5), dtype=torch.float64, device=x.device)
            return self.process.posterior(x, prediction, now, torch.zeros_like(now), draws)
        filled = x.flatten().clone()
        for rows in prediction.chunks(where=x == self.process.mask_index):
            filled[rows] = most_likely(prediction.log_probs(rows)[:, 0], self.process.mask_index)
        return filled.view_as(x)


def reverse_probs(log_p: Tensor, m_t: Tensor, m_s: Tensor, mask_index: int) -> Tensor:
    """q(x_s | x_t = mask) up to the factor m(t): [P, S], from log p(x_0 | x_t) [P, S], m(t) and m(s) [P].

    q(x_s = v) ∝ (m(t) − m(s))·p(v),   q(x_s = mask) ∝ m(s)        (Sahoo et al. 2024, eq. 8); the sum is m(t)
    """
    q_xs = log_p.exp() * (m_t - m_s)[:, None]
    is_mask = torch.arange(log_p.shape[-1], device=log_p.device) == mask_index
    return torch.where(is_mask, m_s[:, None], q_xs)


def gumbel_argmax(weights: Tensor, uniform: Tensor) -> Tensor:
    """argmax_v weights_v / (ε − log(u_v + ε)), the published draw: int64 [P], from weights and uniforms [P, S]."""
    return (weights / (GUMBEL_EPSILON - (uniform + GUMBEL_EPSILON).log())).argmax(-1)


def most_likely(log_p: Tensor, mask_index: int) -> Tensor:
    """The likeliest state that is not the mask: int64 [P], from [P, S]."""
    index = torch.tensor([mask_index], device=log_p.device)
    return log_p.index_fill(-1, index, -torch.inf).argmax(-1)
