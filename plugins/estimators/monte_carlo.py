"""The plain estimator of the mixture's likelihood."""

from torch import Tensor

from di4c.contracts import LossEstimator, Statistics


def joint_nll(statistics: Statistics) -> Tensor:
    """(1/N) Σ_n −log Σ_m w_m ∏_d p^d(x_n^d | x_t; λ_m): [B] nats."""
    return statistics.over_samples(-(statistics.joint + statistics.log_weights.to(statistics.joint)).logsumexp(-1))


class MonteCarlo(LossEstimator):
    """−log (1/M) Σ_m exp Σ_d ℓ_m^d(x), averaged over the target samples (Hayakawa et al. 2025, mixture likelihood).

    Biased upwards for M draws from an infinite law (Jensen); the bias falls like 1/M once several components matter. Exact when
    a finite law is enumerated. Its value includes the target's entropy, the control variate's does not.
    """

    needs = frozenset({"joint"})

    def __call__(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        nll = joint_nll(statistics)
        return nll, nll.new_zeros(nll.shape)
