"""λ after the network: k = 0 blocks, the cheapest head."""

from di4c_plugins.heads.code import LatentCode, symmetry_breaking
from torch import Tensor, nn
from torch.nn import functional as F

from di4c.contracts import Backbone, Context, Modulation, StudentHead


class Readout(StudentHead):
    """h_m = h + U·gelu( A·h ∘ (1 + g(λ_m)) + b(λ_m) ), applied chunk by chunk; works with any backbone."""

    def __init__(self, latent_dim: int, backbone: Backbone, *, hidden: int, scale: float = 1.0):
        super().__init__()
        self.code = LatentCode(latent_dim, hidden)
        self.modulator = FeatureModulator(backbone.width, hidden, scale)

    def context(self, lam: Tensor) -> Context:
        return Context(components=lam.shape[1], modulation=Modulation(self.modulator, self.code(lam)))


class FeatureModulator(nn.Module):
    """Features h [P, H] and codes [P, M, C] → features of the components [P, M, H]."""

    def __init__(self, width: int, hidden: int, scale: float):
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.gain_and_shift = symmetry_breaking(nn.Linear(hidden, 2 * hidden), scale)
        self.outer = symmetry_breaking(nn.Linear(hidden, width), scale)

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        gain, shift = self.gain_and_shift(code).chunk(2, dim=-1)
        return h[:, None] + self.outer(F.gelu(self.inner(h)[:, None] * (1 + gain) + shift)).to(h)
