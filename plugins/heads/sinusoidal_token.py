"""λ as one extra token, embedded as in the paper's language and VQ-image students."""

from torch import Tensor, nn

from di4c.contracts import Backbone, Context, StudentHead
from di4c.errors import SpecError
from di4c_plugins.backbones.sinusoid import sinusoid
from di4c_plugins.heads.code import symmetry_breaking


class SinusoidalToken(StudentHead):
    """One token Linear(GELU(Linear(sinusoid(λ·scale)))) of the backbone's width, GELU by erf.

    The sinusoid has `features` entries, [sin, cos], slowest frequency 1/10000 (Hayakawa et al. 2025, λ ~ U[0, 1],
    scale 1000, features 128, hidden 512). With L > 1 the sinusoids of the coordinates are concatenated. `output_scale`
    starts the last layer larger or smaller than the published code does (std output_scale/√hidden instead of
    1/√(3·hidden)). Published students hold `projection.0`, `projection.2` as `latent_projection.0`,
    `latent_projection.2`.
    """

    needs = frozenset({"tokens"})

    def __init__(
        self,
        latent_dim: int,
        backbone: Backbone,
        *,
        features: int = 128,
        hidden: int = 512,
        scale: float = 1000.0,
        output_scale: float | None = None,
        start: int = 0,
    ) -> None:
        super().__init__()
        if features < 4 or features % 2:
            raise SpecError(f"student head sinusoidal-token: features is {features}; an even number ≥ 4 is needed")
        if not 0 <= start <= max(backbone.depth - 1, 0):
            raise SpecError(
                f"student head sinusoidal-token: start is {start}; the backbone has blocks 0 to {backbone.depth - 1}"
            )
        self.features, self.scale, self.start = features, scale, start
        self.projection = nn.Sequential(
            nn.Linear(latent_dim * features, hidden), nn.GELU(), nn.Linear(hidden, backbone.width)
        )
        if output_scale is not None:
            symmetry_breaking(self.projection[2], output_scale)

    def context(self, lam: Tensor) -> Context:
        """The context with tokens [B·M, 1, H] of λ [B, M, L] float32."""
        embedded = sinusoid(lam.float() * self.scale, self.features, sine_first=True, inclusive=True).flatten(-2)
        weight_type = self.projection[0].weight.dtype
        tokens = self.projection(embedded.to(weight_type)).flatten(0, 1).unsqueeze(1)
        return Context(components=lam.shape[1], tokens=tokens, start=self.start)
