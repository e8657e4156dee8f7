"""λ as raw sinusoids, for networks that embed it themselves."""

from einops import rearrange
from torch import Tensor

from di4c.contracts import Backbone, Context, StudentHead
from di4c.errors import SpecError
from di4c_plugins.backbones.sinusoid import sinusoid


class SinusoidalEmbedding(StudentHead):
    """[sin, cos] of λ·scale, slowest frequency 1/10000, as wide as the backbone's embedding; nothing is trained here.

    The paper's pixel student (Hayakawa et al. 2025): λ ~ U[0, 1], scale 1000. With L > 1 coordinates share the width.
    start: the first block that sees λ; the blocks before it run once an example.
    """

    needs = frozenset({"embedding"})

    def __init__(self, latent_dim: int, backbone: Backbone, *, scale: float = 1000.0, start: int = 0):
        super().__init__()
        self.width, self.scale, self.start = backbone.embedding_width // latent_dim, scale, start
        if backbone.embedding_width % latent_dim or self.width < 4 or self.width % 2:
            raise SpecError(
                f"student head sinusoidal-embedding: {backbone.embedding_width} numbers cannot be shared by "
                f"{latent_dim} coordinates of λ; each needs an even number, at least 4"
            )
        if start and "start" not in backbone.accepts:
            raise SpecError("student head sinusoidal-embedding: this backbone cannot delay λ; leave `start` out")

    def context(self, lam: Tensor) -> Context:
        """The context with embedding [B·M, C] of λ [B, M, L] float32."""
        embedded = sinusoid(lam.float() * self.scale, self.width, sine_first=True, inclusive=True)
        return Context(
            components=lam.shape[1], embedding=rearrange(embedded, "b m l c -> (b m) (l c)"), start=self.start
        )
