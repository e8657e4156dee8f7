"""What tells a mixture from a product, cheap enough to be logged in every run."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Draws, ForwardProcess, LambdaSampler, Prediction, Statistics
from di4c.draws import categorical
from di4c.kernels.adding import add_lines
from di4c.mixture.marginals import mixture_log_weights
from di4c.mixture.student import MixtureStudent
from di4c.mixture.sums import Query, statistics
from di4c.mixture.target import draw

COLLAPSED_NATS = 0.05
"""Below this Σ_d I(λ; x^d) at t = 1 the mixture is a product for every use: its total correlation is smaller still."""


@dataclass(frozen=True)
class Studied:
    """A student with its λ sampler and forward process. at_a_time: the components of a forward pass, as in MixtureStudent.predict."""

    student: MixtureStudent
    latent: LambdaSampler
    process: ForwardProcess
    at_a_time: int | None = None


@torch.no_grad()
def mixture_diagnostics(of: Studied, x_t: Tensor, t: Tensor, cond: Tensor | None, draws: Draws) -> dict[str, float]:
    """Diagnostics of the student at x_t [B, D], means over B:

    mutual_information_nats       Σ_d I(λ; x_0^d), which bounds the next
    total_correlation_nats        E log p^θ(x_0) − Σ_d log p̄^{θ,d}(x_0^d), x_0 ~ p^θ: conditional total correlation, what the
                                  mixture expresses and a product cannot (a mean over B samples)
    effective_components          exp of the entropy of λ's posterior given such an x_0 (1: x_0 tells λ; M: nothing)
    mixture_collapsed             1 if the mutual information is below COLLAPSED_NATS, else 0
    """
    components = of.latent.num_atoms or 64
    lam, weights = of.latent.weighted(components, draws.child("lambda"))
    prediction = of.student.predict(x_t, t, cond, lam, weights, at_a_time=of.at_a_time)
    x_0 = _mixture_sample(prediction, weights, draws)
    found = statistics(prediction, [Query(frozenset({"joint", "marginal"}), x_0[:, None])])[0]
    information = mutual_information(prediction).mean()
    correlation = (found.joint[:, 0] + weights.to(found.joint)).logsumexp(-1) - found.marginal[:, 0]
    return {
        "mutual_information_nats": float(information),
        "total_correlation_nats": float(correlation.mean()),
        "effective_components": float(effective_components(found).mean()),
        "mixture_collapsed": float(components > 1 and information < COLLAPSED_NATS),
    }


def effective_components(statistics: Statistics) -> Tensor:
    """exp of the entropy of λ's posterior given a sample, Σ_m w_m ∏_d p^d(x_n^d; λ_m) normalised: mean over the samples, [B].

    1: one component explains the sample and alone is moved by it; M: λ makes no difference.
    """
    log_posterior = (statistics.joint.detach() + statistics.log_weights.to(statistics.joint)).log_softmax(-1)
    number = (-torch.special.xlogy(log_posterior.exp(), log_posterior.exp()).sum(-1)).exp()  # [B, N]
    return (
        statistics.over_samples(number) if statistics.log_law is None else (number * statistics.log_law.exp()).sum(-1)
    )


def mutual_information(prediction: Prediction) -> Tensor:
    """Σ_d I(λ; x_0^d | x_t) = Σ_d [ H(Σ_m w_m p_m^d) − Σ_m w_m H(p_m^d) ]: [B] nats."""
    size, _, positions = prediction.shape
    log_weights = mixture_log_weights(prediction)
    total = torch.zeros(size, device=prediction.x_t.device)
    for rows in prediction.chunks():
        log_p = prediction.log_probs(rows)
        weighted = log_p + log_weights.to(log_p)[:, None]
        log_mean = weighted.logsumexp(1)
        information = (weighted.exp() * (log_p - log_mean[:, None])).sum((1, 2))
        add_lines(total, rows // positions, information.to(total))
    return total


def _mixture_sample(prediction: Prediction, log_weights: Tensor, draws: Draws) -> Tensor:
    """One x_0 of the mixture an example: [B, D], from one sample of every component and a choice of the component."""
    each = draw(prediction, draws.child("x_0"))
    chosen = categorical(log_weights.double().exp(), draws.child("component").uniform())
    return each[torch.arange(len(each), device=each.device), chosen]
