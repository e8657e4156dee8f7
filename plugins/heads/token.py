"""λ as one more token."""

from einops import rearrange
from torch import Tensor, nn

from di4c.contracts import Backbone, Context, StudentHead
from di4c_plugins.heads.code import LatentCode, symmetry_breaking


class Token(StudentHead):
    """One extra token a component, at the end of the sequence, dropped from the output (Hayakawa et al. 2025, VQ and text)."""

    needs = frozenset({"tokens"})

    def __init__(self, latent_dim: int, backbone: Backbone, *, scale: float = 1.0):
        super().__init__()
        self.code = LatentCode(latent_dim, backbone.width)
        self.project = symmetry_breaking(nn.Linear(backbone.width, backbone.width), scale)

    def context(self, lam: Tensor) -> Context:
        token = self.project(self.code(lam))
        return Context(components=lam.shape[1], tokens=rearrange(token, "b m h -> (b m) 1 h"))
