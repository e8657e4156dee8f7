"""λ after the network: k = 0 blocks, the cheapest head."""

from di4c_plugins.heads.code import LatentCode, symmetry_breaking
from torch import Tensor, nn
from torch.nn import functional as F

from di4c.contracts import Backbone, Context, Modulation, StudentHead


class Readout(StudentHead):
    """h_m = h + U·gelu( A·h ∘ (1 + g(λ_m)) + b(λ_m) ), applied chunk by chunk; works with any backbone.

    `rank` is the width of A·h, `code_width` that of the λ network behind g and b.
    """

    def __init__(self, latent_dim: int, backbone: Backbone, *, rank: int, code_width: int = 128, scale: float = 1.0):
        super().__init__()
        self.code = LatentCode(latent_dim, code_width)
        self.gain_and_shift = symmetry_breaking(nn.Linear(code_width, 2 * rank), scale)
        self.modulator = FeatureModulator(backbone.width, rank)

    def context(self, lam: Tensor) -> Context:
        gains_and_shifts = self.gain_and_shift(self.code(lam))
        return Context(components=lam.shape[1], modulation=Modulation(self.modulator, gains_and_shifts))


class FeatureModulator(nn.Module):
    """Features h [P, H] with gains and shifts [P, M, 2·rank] → features of the components [P, M, H]."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.inner = nn.Linear(width, rank)
        self.outer = symmetry_breaking(nn.Linear(rank, width), 1.0)

    def forward(self, h: Tensor, gains_and_shifts: Tensor) -> Tensor:
        gain, shift = gains_and_shifts.chunk(2, dim=-1)
        return h[:, None] + self.outer(F.gelu(self.inner(h)[:, None] * (1 + gain) + shift)).to(h)
