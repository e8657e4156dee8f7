"""Whether an amortised posterior says anything."""

from torch import Tensor

from di4c.diagnostics.mixture import COLLAPSED_NATS

ACTIVE_NATS = 0.01
"""A dimension or factor of λ is in use where KL( q ‖ p ) has at least this mean (Burda et al. 2016 take the means' variance alike)."""


def posterior_diagnostics(divergence: Tensor) -> dict[str, float]:
    """Of KL( q(λ | x_0, x_1) ‖ p(λ) ) by dimension or factor, [B, F] nats: its mean sum, how many are active, and whether none is.

    At t = 1 the mean is at least what λ tells of x_0, I(λ; x_0) under q; 0 is the collapse of the posterior to the prior.
    """
    mean = divergence.detach().mean(0)
    return {
        "posterior_kl_at_1_nats": float(mean.sum()),
        "posterior_active": float((mean > ACTIVE_NATS).sum()),
        "posterior_collapsed": float(mean.sum() < COLLAPSED_NATS),
    }
