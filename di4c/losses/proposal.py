"""λ proposed by an amortised posterior q(λ | x, x_t): importance-weighted likelihoods where the prior cannot be enumerated.

    −log p^θ(x | x_t)  ≤  −E log (1/M) Σ_m p^θ(x | x_t; λ_m)·[ p(λ_m)/q(λ_m | x, x_t) ]^b,      λ_m ~ q,  b = 1

(Burda et al. 2016), tight for every M where q is the exact posterior, and as M grows. With M draws of the prior a sample is
explained by the few that happen to suit it; with those of q by all.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from di4c.contracts import Draws, LambdaSampler, LossEstimator, Posterior, Proposal, Proposed, Statistics
from di4c.errors import SpecError

FIRST = {"data": 0, "consistency": 1}
"""The first of its samples among those that λ is proposed for, by the term."""


@dataclass(frozen=True)
class ProposalOptions:
    """λ of the data and consistency terms drawn from q(λ | x, x_t), x the data or a sample of the target.

    posterior: the network of q. beta: what the exponent b is at the first step; q says nothing as long as a student does not listen, and
    collapses to p if that costs at once. warmup: steps over which b rises to 1. free_bits: nats of KL( q ‖ p ) an example that cost
    nothing (b = 0 below them; Kingma et al. 2016). free_steps: for so many steps from the first; null for all.
    """

    posterior: Posterior
    beta: float = 1.0
    warmup: int = 0
    free_bits: float = 0.0
    free_steps: int | None = None

    def __post_init__(self):
        if not 0 <= self.beta <= 1 or self.warmup < 0 or self.free_bits < 0 or (self.free_steps or 0) < 0:
            raise SpecError(
                "objective.proposal: beta in [0, 1]; warmup, free_bits and free_steps at least 0; found "
                f"{self.beta}, {self.warmup}, {self.free_bits} and {self.free_steps}"
            )

    def faults(
        self, latent: LambdaSampler, components: int, estimators: Mapping[str, LossEstimator], distils: bool
    ) -> Iterator[str]:
        """Every term must have a use for λ of a posterior, and the λ sampler a family of them.

        estimators: of the terms data and consistency; distils: whether there is a distillation term without times of its own.
        """
        name = type(latent).__name__
        if latent.proposal_width is None or components == latent.num_atoms:
            none, enumerated = "has no family of posteriors", "is enumerated, which no proposal betters"
            why = none if latent.proposal_width is None else enumerated
            yield f"objective.proposal: latent {name} {why}; take gaussian, or product-categorical with more atoms"
        if components == 1 and not latent.proposal(torch.zeros(1, 1, latent.proposal_width)).reparameterised:
            yield f"objective.proposal: latent {name} needs objective.components ≥ 2, draws to compare with one another"
        if "data" not in estimators:
            yield "objective.proposal: needs the data term, by which the posterior learns at every step"
        if distils:
            yield "objective.proposal: the distillation term needs λ of the prior, so times of its own (distillation_time)"
        for term, estimator in estimators.items():
            if estimator.needs != {"joint"} or estimator.assumes_independence:
                told = "takes λ of the prior; with objective.proposal take monte-carlo"
                yield f"objective.{term}.estimator: {type(estimator).__name__} {told}"

    def proposed(self, q: Proposal, components: int, draws: Draws, step: int) -> "ProposedComponents":
        """M draws of each q(λ | x_j, x_t)."""
        divergence = q.divergence()
        return ProposedComponents(q.draw(components, draws), divergence, self.exponent(divergence.sum(-1), step))

    def exponent(self, divergence: Tensor, step: int) -> Tensor:
        """b of KL( q ‖ p ) [...]: the same shape. With M = 1 the bound's gradient is then that of β·max(KL, free)."""
        beta = self.beta + (1 - self.beta) * min(1.0, step / self.warmup) if self.warmup else 1.0
        free = self.free_bits if self.free_steps is None or step < self.free_steps else 0.0
        return torch.where(divergence.detach() >= free, beta, 0.0)


@dataclass(frozen=True)
class ProposedComponents:
    """λ [B, J·M, L] for J samples an example, x_0 and the target's, M each.

    divergence: [B, J, F] nats, KL( q ‖ p ) by dimension; exponent: [B, J], b.
    """

    proposed: Proposed
    divergence: Tensor
    exponent: Tensor

    @property
    def lam(self) -> Tensor:
        return self.proposed.lam.flatten(1, 2)

    def of_own(self, found: Mapping[str, Statistics]) -> dict[str, Statistics]:
        """The sums of the terms that have samples, under the λ that were proposed for each, with their importance weights.

        Of the joint [B, N, J·M] under all λ that is [B, N, M].
        """
        return {name: self._of_samples(found[name], first) for name, first in FIRST.items() if name in found}

    def _of_samples(self, statistics: Statistics, first: int) -> Statistics:
        """The same of samples first, …, first + N − 1."""
        blocks = statistics.joint.unflatten(-1, self.proposed.lam.shape[1:3])
        number = torch.arange(blocks.shape[1], device=blocks.device)
        joint = blocks[:, number, first + number]
        return replace(statistics, joint=joint, log_weights=self.log_weights(joint, first))

    def log_weights(self, joint: Tensor, first: int) -> Tensor:
        """log w_m of those samples, from their own sums [B, N, M]: b·log p/q − log M, with q's score function where it takes one."""
        some = slice(first, first + joint.shape[1])
        log_ratio = self.proposed.log_ratio[:, some].to(joint)
        weights = self.exponent[:, some, None].to(joint) * log_ratio - math.log(joint.shape[-1])
        if self.proposed.log_q is None:
            return weights
        return weights + score_term(joint + weights, self.proposed.log_q[:, some].to(joint))[..., None]

    def told(self, data: Statistics) -> dict[str, Tensor]:
        """{"data_bound", the bound of −log p^θ_{0|t}(x_0 | x_t) whatever the weights (data's value has b in it), "posterior_kl",
        KL( q(λ | x_0, x_t) ‖ p(λ) )}: [B] nats each, without gradient; from the data term's sums under its own λ."""
        joint = data.joint[:, 0]
        log_bound = (joint + self.proposed.log_ratio[:, 0].to(joint)).detach().logsumexp(-1) - math.log(joint.shape[-1])
        return {"data_bound": -log_bound, "posterior_kl": self.divergence.detach().sum(-1)[:, 0]}


def score_term(log_terms: Tensor, log_q: Tensor) -> Tensor:
    """0 with the gradient of E_q log Σ_m exp(log_terms) that comes from the draws: [...], from [..., M] each.

    Σ_m ( L − L_{−m} )·∇log q(λ_m),  L = log Σ_m f_m,  L_{−m} with the geometric mean of the others in place of f_m.

    (VIMCO, Mnih & Rezende 2016.) Unbiased, and it asks for no further evaluation of the student; with one draw there are no others.
    """
    f = log_terms.detach()
    number = f.shape[-1]
    others = (f.sum(-1, keepdim=True) - f) / max(number - 1, 1)  # [..., M]
    own = torch.eye(number, dtype=torch.bool, device=f.device)
    without = torch.where(own, others[..., None], f[..., None, :]).logsumexp(-1)
    signal = f.logsumexp(-1, keepdim=True) - without
    return (signal * (log_q - log_q.detach())).sum(-1)
