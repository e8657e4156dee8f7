"""Features of an example → the parameters of q."""

from torch import nn

from di4c.contracts import LambdaSampler
from di4c.errors import SpecError


def parameter_network(
    features: int, width: int, latent: LambdaSampler, *, spread: float, noise: float
) -> nn.Sequential:
    """Features [..., `features`] → parameters [..., P] by a hidden layer. SpecError if the λ sampler has no family of q.

    spread: how far apart q of different examples are at the start, in standard deviations of the prior. noise: how wide each is. With
    spread 1 and noise 0.2 a student hears a code of x_0 from the first step on; it has no reason to learn to ignore λ, as it has
    where q starts at the prior, and hardly ever unlearns.
    """
    if spread <= 0 or not 0.01 <= noise <= 1:
        raise SpecError(f"posterior: spread > 0 and noise in [0.01, 1]; found {spread} and {noise}")
    if latent.proposal_width is None:
        raise SpecError(
            f"latent: {type(latent).__name__} has no family of posteriors; gaussian, uniform, stratified, sobol and product-categorical have"
        )
    last = nn.Linear(width, latent.proposal_width)
    latent.start_proposal(last, spread=spread, noise=noise)
    return nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.LayerNorm(width, elementwise_affine=False), last)
