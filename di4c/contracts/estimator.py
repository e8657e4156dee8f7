"""Estimators of −E_x log p^θ(x | x_t), from sums that never need [B, M, D, S]."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """What mixture/sums.py gathers chunk by chunk, float64. Fields an estimator does not need are None.

    joint: [B, N, M], Σ_d log p^d(x_n^d | x_t; λ_m).
    marginal: [B, N], Σ_d log Σ_m w_m p^d(x_n^d | x_t; λ_m).
    kl: [B], Σ_d KL(q̄^d ‖ Σ_m w_m p^d(·; λ_m)), q̄ the target's marginals.
    componentwise_kl: [B], Σ_m w_m Σ_d KL(q̄^d ‖ p^d(·; λ_m)).
    log_weights: [M], log w_m; [B, N, M] where λ is proposed for each sample: log w_m + log p(λ_m)/q(λ_m | x_n, x_t).
    target_joint: [B, N, M], Σ_d log p^d(x_n^d | x_u; λ_m) of the target that drew x_n, at the λ_m of `joint`: x_n is
        the sample of component n.
    sample_weights: [N], probabilities of the samples; None for equal ones.
    log_law: [B, N], the target's log-probabilities of the samples, which are then every x there is.
    """

    log_weights: Tensor
    joint: Tensor | None = None
    marginal: Tensor | None = None
    kl: Tensor | None = None
    componentwise_kl: Tensor | None = None
    target_joint: Tensor | None = None
    sample_weights: Tensor | None = None
    log_law: Tensor | None = None

    def over_samples(self, values: Tensor) -> Tensor:
        """The mean of values [B, N] over the target samples: [B]."""
        return values.mean(-1) if self.sample_weights is None else (values * self.sample_weights.to(values)).sum(-1)


class LossEstimator(ABC):
    """Maps statistics to (correlated part [B], marginal part [B]), nats; their sum estimates the loss.

    `needs` names the fields of Statistics it reads, of {"joint", "marginal", "kl", "componentwise_kl", "target_joint", "log_law"}.
    "target_joint" makes target and student share their λ (M = N); only a consistency term has it. `assumes_independence`: the λ_m
    must be independent equal-weight draws: neither an enumerated prior, which has no bias left to remove, nor a stratified set.
    "log_law" replaces the samples by all x: small spaces and an enumerated prior of λ only. `least_components`: the smallest M.
    """

    needs: frozenset
    assumes_independence: bool = False
    least_components: int = 1

    @abstractmethod
    def __call__(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """(correlated [B], marginal [B]); a weight a(t) multiplies the correlated part only."""
