"""The continuous-time bound of a Markov chain's reverse."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from di4c.contracts import Prediction
from di4c_plugins.processes.chain import Tables

SMALLEST = 1e-30
"""Stands for 0 under a logarithm."""

Chain = Any
"""A ContinuousTimeChain, whose module imports this one."""


def continuous_time_bound(process: Chain, x_0: Tensor, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
    """A bound on −log p(x_0), unbiased for t ~ U[0, 1] and x_t ~ q(·|x_0): [B] nats.

    The reverse chain runs from the prior to a time τ, where x_0 ~ ∏_d p^d(x_0^d|x_τ) is drawn. For each τ

        −log p(x_0) ≤ KL(q_1(·|x_0) ‖ prior) + ∫_τ^1 E ℓ_t dt + E −log p(x_0|x_τ),
        ℓ_t = β(t) Σ_d Σ_{y≠x_t^d} R[y, x_t^d] · ( r^θ(y) − r(y) + r(y) log(r(y)/r^θ(y)) ),
        r(y) = q(y|x_0^d)/q(x_t^d|x_0^d),    r^θ(y) = Σ_{x_0} p^d(x_0|x_t) q(y|x_0)/q(x_t^d|x_0).

    ℓ_t is the relative entropy rate of the reverse chain given x_0 to the model's, with one network evaluation: the
    expectation of Campbell et al. 2022's equation (7) over the jump they sample, with its constant. Averaged over
    τ ~ U[0, min_time], so that no t is left out, one sample is

        KL(q_1(·|x_0) ‖ prior) + min(t/min_time, 1)·ℓ_t + [t < min_time]/min_time · (−log p(x_0|x_t)).
    """
    t = t.double()
    running, drawn = _sums(process, x_0, x_t, t, prediction)
    last = (t < process.min_time) / process.min_time
    bound = _prior_gap(process, x_0) + (t / process.min_time).clamp_max(1.0) * running + last * drawn
    return bound.to(torch.float64 if prediction.features.dtype == torch.float64 else torch.float32)


def _sums(process: Chain, x_0: Tensor, x_t: Tensor, t: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
    """ℓ_t and −log p(x_0|x_t): [B] float64 each, by blocks of positions that are recomputed in the backward pass."""
    q = process.tables(t)

    def block_sums(block: slice) -> tuple[Tensor, Tensor]:
        log_p = process.log_probs_at(prediction, block)
        drawn = -log_p.gather(-1, x_0[:, block, None]).double().sum((1, 2))
        return _relative_entropy_rate(process, q, x_0[:, block], x_t[:, block], log_p.exp()), drawn

    running, drawn = torch.zeros_like(t), torch.zeros_like(t)
    for block in process.blocks(*x_t.shape):
        if torch.is_grad_enabled() and prediction.features.requires_grad:
            parts = checkpoint(block_sums, block, use_reentrant=False, preserve_rng_state=False)
        else:
            parts = block_sums(block)
        running, drawn = running + parts[0], drawn + parts[1]
    return process.time.rate(t) * running, drawn


def _relative_entropy_rate(process: Chain, q: Tables, x_0: Tensor, x_t: Tensor, p_0: Tensor) -> Tensor:
    """ℓ_t/β(t) summed over a block of positions: [B] float64."""
    given_x_0 = q.rows(x_0)
    truth = given_x_0 / given_x_0.gather(-1, x_t[..., None]).clamp_min(SMALLEST)
    model = process.ratios(q, x_t, p_0)
    cost = model - truth + torch.xlogy(truth, truth) - truth * model.clamp_min(SMALLEST).log()
    return (process.chain.jumps(x_t.device).mT[x_t] * cost).sum((1, 2))


def _prior_gap(process: Chain, x_0: Tensor) -> Tensor:
    """Σ_d KL(q_1(·|x_0^d) ‖ prior): [B] float64."""
    q = process.transition(torch.ones(1, device=x_0.device))[0]
    log_prior = process.prior_probs.to(q).clamp_min(SMALLEST).log()
    return (torch.xlogy(q, q) - q * log_prior).sum(-1)[x_0].sum(1)
