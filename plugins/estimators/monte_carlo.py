"""The plain estimator of the mixture's likelihood."""

from torch import Tensor

from di4c.contracts import LossEstimator, Statistics


def joint_nll(statistics: Statistics) -> Tensor:
    """(1/N) Σ_n −log Σ_m w_m ∏_d p^d(x_n^d | x_t; λ_m): [B] nats."""
    return statistics.over_samples(-(statistics.joint + statistics.log_weights.to(statistics.joint)).logsumexp(-1))


class MonteCarlo(LossEstimator):
    """−log (1/M) Σ_m ∏_d p^d(x^d | x_t; λ_m): biased upwards, by O(1/M) (Jensen); exact where λ is enumerated.

    Averaged over the target samples (Hayakawa et al. 2025, mixture likelihood). The bias falls like 1/M only once several
    components matter. Each λ_m need only have the prior of λ: sobol or stratified sets do with fewer. The target is drawn without
    gradient and λ's prior has no parameters, so no score function is involved and no leave-one-out baseline (VIMCO's) applies; what a
    leave-one-out estimate could tune is the control variate's coefficient, whose best value was measured to be 1 within noise
    (tools/results/estimators.json). Nor does Russian roulette over doublings of M pay: unbiased, but noisier than Monte Carlo of
    the same cost. Its value includes the target's entropy, the control variate's does not.
    """

    needs = frozenset({"joint"})

    def __call__(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        nll = joint_nll(statistics)
        return nll, nll.new_zeros(nll.shape)
