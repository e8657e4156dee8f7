"""λ through the conditioning."""

from einops import rearrange
from torch import Tensor, nn

from di4c.contracts import Backbone, Context, StudentHead
from di4c.errors import SpecError
from di4c_plugins.heads.code import LatentCode, symmetry_breaking


class AdaLN(StudentHead):
    """λ is added to the time and class embedding, and so modulates every block."""

    needs = frozenset({"embedding"})

    def __init__(self, latent_dim: int, backbone: Backbone, *, scale: float = 1.0):
        super().__init__()
        # As wide as its target at least: a network may have few features (a pixel U-Net two) and a wide conditioning.
        width = max(backbone.width, backbone.embedding_width)
        self.code = LatentCode(latent_dim, width)
        self.project = symmetry_breaking(nn.Linear(width, backbone.embedding_width), scale)
        self.start = 0

    def context(self, lam: Tensor) -> Context:
        embedding = rearrange(self.project(self.code(lam)), "b m c -> (b m) c")
        return Context(components=lam.shape[1], embedding=embedding, start=self.start)


class Late(AdaLN):
    """As `adaln`, but λ enters the last `blocks` blocks only: the M components share one pass of the trunk before them."""

    needs = frozenset({"embedding", "start"})

    def __init__(self, latent_dim: int, backbone: Backbone, *, blocks: int, scale: float = 1.0):
        super().__init__(latent_dim, backbone, scale=scale)
        if not 1 <= blocks <= backbone.depth:
            raise SpecError(f"student.head.blocks: 1 to {backbone.depth} (the backbone's depth); found {blocks}")
        self.start = backbone.depth - blocks
