"""Features of an example → the parameters of q."""

from torch import nn

from di4c.contracts import LambdaSampler
from di4c.errors import SpecError


def parameter_network(width: int, latent: LambdaSampler) -> nn.Sequential:
    """Features [..., width] → parameters [..., P], near 0 at the start, where q is the prior. SpecError if that has no family of q."""
    if latent.proposal_width is None:
        raise SpecError(
            f"latent: {type(latent).__name__} has no family of posteriors; gaussian, uniform, stratified, sobol and product-categorical have"
        )
    last = nn.Linear(width, latent.proposal_width)
    nn.init.normal_(last.weight, std=0.02)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), last)
