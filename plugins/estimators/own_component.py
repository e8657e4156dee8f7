"""The joint term with the λ' that drew the target sample among the components, by importance."""

import math

import torch
from torch import Tensor

from di4c.contracts import LossEstimator, Statistics


class OwnComponent(LossEstimator):
    """−log p^θ with each target sample's own λ' as an importance-weighted component; bias far below Monte Carlo's at equal M.

    Target and student share λ_1, …, λ_M. Sample x_n comes from component n of the target, so λ_n is a draw of the target's
    posterior p(λ | x_n) ∝ p(λ) p_u(x_n | λ), the others of p(λ). By the balance heuristic (Veach and Guibas 1995),

        p̂^θ(x_n) = Σ_m p^θ_t(x_n | λ_m) / (M − 1 + r_{n,m}),   r_{n,m} = p_u(x_n | λ_m) / p_u(x_n),

    which is unbiased with the true p_u(x_n) if each λ_m, m ≠ n, has the prior p(λ) given λ_n as well: the M draws must be pairwise
    independent. In a stratified or Sobol set, or without replacement, the others avoid the λ_n that explains x_n, and p̂^θ(x_n) is too
    small; for Sobol sets no gain was measured either (tools/results/estimators.json). For p_u(x_n) stands its mean over the same M
    components, own one included. Monte Carlo draws miss the λ that explain x_n once D is large, and push whatever component is
    least far away; here one is always present. −log is biased for finite M, by O(1/M); the target must resemble the student, as one small step makes it.
    With M = 1 it is the bound −log p^θ_t(x_n | λ_n).
    """

    needs = frozenset({"joint", "target_joint"})
    assumes_independence = True

    def __call__(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        log_target = statistics.target_joint.logsumexp(-1) - math.log(statistics.target_joint.shape[-1])
        nll = balanced_nll(statistics.joint, statistics.target_joint, log_target)
        return statistics.over_samples(nll), nll.new_zeros(len(nll))


def balanced_nll(joint: Tensor, target_joint: Tensor, log_target: Tensor) -> Tensor:
    """−log p̂^θ(x_n): [B, N], from log p_t(x_n | λ_m), log p_u(x_n | λ_m) [B, N, M] and log p_u(x_n) [B, N]."""
    others = math.log(joint.shape[-1] - 1) if joint.shape[-1] > 1 else -math.inf
    log_ratio = target_joint - log_target[..., None]
    return -(joint - torch.logaddexp(torch.full_like(log_ratio, others), log_ratio)).logsumexp(-1)
