"""λ after the network: k = 0 blocks, the cheapest head."""

from torch import Tensor, nn
from torch.nn import functional as F

from di4c.contracts import Backbone, Context, Modulation, StudentHead
from di4c.errors import SpecError
from di4c_plugins.heads.code import LatentCode, symmetry_breaking


class Readout(StudentHead):
    """h_m = h + U·gelu( (A·h + e_d) ∘ (1 + g(λ_m)) + b(λ_m) ), applied chunk by chunk; works with any backbone.

    `rank` is the width of A·h, `code_width` that of the λ network behind g and b. position_scale: standard deviation of the
    learned e_d of a position d at the start; 0 leaves them out. Text needs them: its positions are alike, so at t = 1 the
    features of a trained backbone hardly differ, and components that act on all positions alike cannot make them agree.
    """

    def __init__(
        self,
        latent_dim: int,
        backbone: Backbone,
        num_positions: int | None = None,
        *,
        rank: int,
        code_width: int = 128,
        scale: float = 1.0,
        position_scale: float = 0.0,
    ):
        super().__init__()
        self.code = LatentCode(latent_dim, code_width)
        self.gain_and_shift = symmetry_breaking(nn.Linear(code_width, 2 * rank), scale)
        if position_scale and num_positions is None:
            raise SpecError("head readout: position_scale needs num_positions")
        self.modulator = FeatureModulator(backbone.width, rank, num_positions if position_scale else 0, position_scale)

    def context(self, lam: Tensor) -> Context:
        gains_and_shifts = self.gain_and_shift(self.code(lam))
        return Context(components=lam.shape[1], modulation=Modulation(self.modulator, gains_and_shifts))


class FeatureModulator(nn.Module):
    """Features h [P, H] with gains and shifts [P, M, 2·rank] and positions [P] → features of the components [P, M, H]."""

    def __init__(self, width: int, rank: int, num_positions: int = 0, position_scale: float = 0.0):
        super().__init__()
        self.positions = nn.Embedding(num_positions, rank) if num_positions else None
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=position_scale)
        self.inner = nn.Linear(width, rank)
        self.outer = symmetry_breaking(nn.Linear(rank, width), 1.0)

    def forward(self, h: Tensor, gains_and_shifts: Tensor, positions: Tensor) -> Tensor:
        gain, shift = gains_and_shifts.chunk(2, dim=-1)
        inner = self.inner(h)
        if self.positions is not None:
            inner = inner + self.positions(positions)
        return h[:, None] + self.outer(F.gelu(inner[:, None] * (1 + gain) + shift)).to(h)
