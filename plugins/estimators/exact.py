"""The loss itself, on spaces small enough to be listed."""

from torch import Tensor

from di4c.contracts import LossEstimator, Statistics


class Exact(LossEstimator):
    """Σ_x q(x)·[ log q(x) − log Σ_m w_m ∏_d p^d(x^d | x_t; λ_m) ], over all x and all atoms of a finite λ: no bias.

    q is the law of the target at the x_u that was drawn, for the data term the point x_0. Nothing is left to chance but
    t, x_t and x_u; the value is the relative entropy, so 0 for a student equal to its target.
    """

    needs = frozenset({"joint", "log_law"})

    def __call__(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        log_p = (statistics.joint + statistics.log_weights.to(statistics.joint)).logsumexp(-1)
        log_law = statistics.log_law.to(log_p)
        divergence = (log_law.exp() * (log_law - log_p)).sum(-1)
        return divergence, divergence.new_zeros(divergence.shape)
