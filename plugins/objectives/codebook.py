"""A codebook that follows the latents assigned to its codes."""

import torch
from einops import rearrange
from torch import Tensor, nn

from di4c.contracts import Draws
from di4c.ranks import combined, rank, world_size

GOLDEN_RATIO = (5**0.5 - 1) / 2


class CodebookAverage(nn.Module):
    """Averages of how many latents each code gets and of their sum; a code vector is their quotient.

        N_k ← γ N_k + (1 − γ) n_k,   m_k ← γ m_k + (1 − γ) Σ_{z → k} z,   e_k = m_k / N_k

    (van den Oord et al. 2017, appendix A.1.) A code with N_k < restart_below·(mean N) starts again at a latent of the
    batch. All buffers are the same on every rank: the sums are taken over all ranks' examples.
    """

    def __init__(self, num_codes: int, width: int, *, decay: float, restart_below: float):
        super().__init__()
        self.decay = decay
        self.restart_below = restart_below
        self.register_buffer("count", torch.zeros(num_codes))
        self.register_buffer("total", torch.zeros(num_codes, width))

    @torch.no_grad()
    def forward(self, latents: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        """The code vectors [K, e] after taking in latents [B, e, h, w] with their codes [B, h, w]."""
        z = rearrange(latents, "b e h w -> (b h w) e").to(self.total)
        assigned = one_hot(codes.flatten(), len(self.count)).to(self.total)
        with torch.autocast(z.device.type, enabled=False):  # sums are float32 as the averages are
            total = assigned.T @ z
        count, total, seeds = combined(assigned.sum(0), total, self._candidates(z, draws))
        self.count.lerp_(count, 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        dead = self.count < self.restart_below * self.count.mean()
        # A code begins again with the weight of an average one: it is not dead at the next step, and fades if unused.
        weight = self.count.mean()
        self.count.copy_(torch.where(dead, weight, self.count))
        self.total.copy_(torch.where(dead[:, None], seeds * weight, self.total))
        return self.total / self.count[:, None]

    def _candidates(self, z: Tensor, draws: Draws) -> Tensor:
        """This rank's part of a latent for every code [K, e], zero where another rank holds it.

        Code k takes row ⌊n·frac(u + k·φ)⌋ of all ranks' rows: spread evenly over the batch, and the same wherever it
        is computed.
        """
        k = torch.arange(len(self.count), device=z.device)
        place = (draws.child("restart").scalar() + k.double() * GOLDEN_RATIO) % 1.0
        row = (place * (len(z) * world_size())).long() - rank() * len(z)
        own = (row >= 0) & (row < len(z))
        return torch.where(own[:, None], z[row.clamp(0, len(z) - 1)], 0.0)


def one_hot(codes: Tensor, num_codes: int) -> Tensor:
    """[n, K] float32 indicators of codes [n]."""
    return nn.functional.one_hot(codes, num_codes).float()
