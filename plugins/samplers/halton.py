"""Unmasking along a Halton sequence, whose early points spread over the image (Besnier et al. 2025)."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from di4c.contracts import Denoiser, Draws, categorical
from di4c.contracts.extending import extending
from di4c.errors import SpecError
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.guidance import GuidedSampler


@lru_cache(maxsize=8)
def halton_order(side: int) -> Tensor:
    """The cells row·side + column of a side × side grid in the order in which the 2-D Halton sequence visits them: [D].

    Point n has coordinates (Φ_2(n), Φ_3(n)), the digits of n mirrored at the point in bases 2 and 3, n = 1, 2, …
    """
    seen: dict[int, None] = {}
    n = 0
    while len(seen) < side * side:
        n += 1
        seen.setdefault(int(_mirrored(n, 2) * side) * side + int(_mirrored(n, 3) * side))
    return torch.tensor(list(seen))


def _mirrored(n: int, base: int) -> float:
    """Φ_b(n) = Σ_k a_k·b^(−k−1) for n = Σ_k a_k·b^k."""
    numerator, denominator = 0, 1
    while n:
        n, digit = divmod(n, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator / denominator


class HaltonSampler(GuidedSampler):
    """Reveals the next ⌊(1 − γ(s))·D⌋ − (visible) positions along the Halton order, at least one a step.

    `guidance` is constant over steps. `redraw`: draw the visible tokens of the order anew at every step, as the
    published code does (its network predicts visible tokens too); without it they stay, and those that `sample` finds
    visible at the start, a prompt, stay in any case. `shift` begins the order of each example at a random point of the
    sequence.
    """

    called = "halton"

    @extending(GuidedSampler, before="redraw")
    def __init__(self, process: Absorbing, *, redraw: bool = False, shift: bool = False, **of_guided: Any):
        super().__init__(process, **of_guided)
        self.redraw, self.shift = redraw, shift

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_s; with `redraw` of all visible tokens, since a step alone cannot tell a prompt."""
        prompt = torch.zeros_like(x_t, dtype=torch.bool)
        log_p = self.guided(denoiser, x_t, t, cond, torch.ones_like(t))
        return self._revealed(log_p, x_t, s, self._rank(x_t, draws.child("order")), prompt, draws)

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, x_1: Tensor, steps: int, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_0: [B, D]; the order of an example is the same in all steps."""
        rank, prompt = self._rank(x_1, draws.child("order")), x_1 != self.process.mask_index
        grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64, device=x_1.device)
        x = x_1
        for n in range(steps):
            t, s = grid[n].expand(len(x)), grid[n + 1].expand(len(x))
            log_p = self.guided(denoiser, x, t, cond, torch.ones_like(t))
            x = self._revealed(log_p, x, s, rank, prompt, draws.child("step", n))
        return x

    def _revealed(self, log_p: Tensor, x_t: Tensor, s: Tensor, rank: Tensor, prompt: Tensor, draws: Draws) -> Tensor:
        """x_t with draws of log p [B, D, S] at the positions whose turn it is, but for the prompt's: [B, D]."""
        x_0 = categorical(log_p.exp(), draws.child("token").uniform(x_t.shape[1]))
        return torch.where(self._turns(x_t, s, rank) & ~prompt, x_0, x_t)

    def _turns(self, x_t: Tensor, s: Tensor, rank: Tensor) -> Tensor:
        """The positions that get a drawn token: bool [B, D]."""
        masked = x_t == self.process.mask_index
        visible = (~masked).sum(1)
        # A hair above, so that a fraction that is a whole number of tokens is not rounded to one less.
        wanted = ((1 - self.process.schedule.masked(s)) * x_t.shape[1] + 1e-9).long()
        count = (wanted - visible).clamp_min(1)
        among_masked = torch.where(masked, rank, rank.shape[1]).argsort(dim=1).argsort(dim=1)
        chosen = masked & (among_masked < count[:, None])
        return chosen | ~masked if self.redraw else chosen

    def _rank(self, x_t: Tensor, draws: Draws) -> Tensor:
        """The place of every position in its example's order: [B, D]."""
        positions = x_t.shape[1]
        side = math.isqrt(positions)
        if side * side != positions:
            raise SpecError(f"sampler halton: {positions} positions are not a square grid")
        place = halton_order(side).to(x_t.device).argsort().expand(len(x_t), -1)
        if not self.shift:
            return place
        return (place - draws.integers(positions)[:, None]) % positions
