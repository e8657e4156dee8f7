"""Exact laws on small spaces S^D: every state is listed, and a reverse step is a matrix.

States stand in raster order (the last position changes fastest), so that a law is a vector [S^D] and a step a matrix
[from, to]. All is float64.
"""

import itertools
from typing import Any

import torch
from torch import Tensor

from di4c.contracts import ForwardProcess, Prediction
from di4c.errors import SpecError

MAX_SPACE = 2**16
"""States beyond which a space is not enumerated."""


def every_state(num_states: int, num_positions: int) -> Tensor:
    """S^D, in raster order: [S^D, D] int64. SpecError if there are more than MAX_SPACE."""
    if num_states**num_positions > MAX_SPACE:
        raise SpecError(f"{num_states}^{num_positions} states are too many to enumerate (at most {MAX_SPACE})")
    return torch.tensor(list(itertools.product(range(num_states), repeat=num_positions)))


def number_of(x: Tensor, num_states: int) -> Tensor:
    """The place of x [..., D] among `every_state`: [...] int64."""
    weights = num_states ** torch.arange(x.shape[-1] - 1, -1, -1, device=x.device)
    return (x * weights).sum(-1)


def product_law(p: Tensor, states: Tensor) -> Tensor:
    """∏_d p^d(x^d) of every x among `states` [K, D]: [..., K], from p [..., D, S]."""
    law = p.new_ones(())
    for d in range(states.shape[1]):
        law = law * p[..., d, :][..., states[:, d]]
    return law


def noised_law(process: Any, law: Tensor, states: Tensor, t: float) -> Tensor:
    """q_t = Σ_{x_0} law(x_0) ∏_d q(x_t^d | x_0^d): [S^D], from the law [K] of the clean `states` [K, D]."""
    kernel = process.transition(torch.tensor([t], dtype=torch.float64))[0]
    return law @ product_law(kernel[states], every_state(process.num_states, states.shape[1]))


def prior_law(process: Any, num_positions: int) -> Tensor:
    """The law of x_1 in generation: [S^D]; all masks, or the product of the process's `prior_probs`."""
    states = every_state(process.num_states, num_positions)
    if process.mask_index is not None:
        return (states == process.mask_index).all(1).double()
    return product_law(process.prior_probs.double().expand(num_positions, -1), states)


def bridge(process: ForwardProcess, t: float, s: float) -> Tensor:
    """q(x_s | x_t, x_0) of one position by the process's own posterior: [x_t, x_0, x_s], [S, S, S]."""
    size = process.num_states
    x_t, x_0, x_s = (grid.reshape(-1, 1) for grid in torch.meshgrid(*[torch.arange(size)] * 3, indexing="ij"))
    certain = Prediction.point(x_0, x_t, size)
    certain = Prediction.from_logits(certain.features.double(), x_t)
    now, then = (torch.full((len(x_t),), v, dtype=torch.float64) for v in (t, s))
    return process.posterior_log_prob(x_s, x_t, certain, now, then).double().exp().view(size, size, size)


def step_laws(between: Tensor, x_t: Tensor, p_0: Tensor, states: Tensor) -> Tensor:
    """∏_d Σ_{x_0^d} q(x_s^d | x_t^d, x_0^d) p^d(x_0^d | x_t; λ_m) over `states` [K, D]: [B, M, K].

    between: the `bridge` [S, S, S]; x_t [B, D]; p_0 [B, M, D, S], the components' probabilities of the clean states.
    """
    return product_law(torch.einsum("bmdi,bdij->bmdj", p_0, between[x_t]), states)


def step_matrix(process: ForwardProcess, prediction: Prediction, t: float, s: float) -> Tensor:
    """p_{s|t}(x_s | x_t) of the ancestral step by a mixture, Σ_m w_m ∏_d p^d: [B, S^D], a row a row of prediction.x_t.

    With s = 0 it is the denoiser's own law. Components have their log-weights, or equal ones.
    """
    p_0 = dense_probs(prediction)
    laws = step_laws(bridge(process, t, s), prediction.x_t, p_0, every_state(process.num_states, p_0.shape[2]))
    if prediction.log_weights is None or prediction.averaged:
        return laws.mean(1)
    return torch.einsum("m,bmk->bk", prediction.log_weights.double().exp(), laws)


def dense_probs(prediction: Prediction) -> Tensor:
    """p^d(x_0^d | x_t; λ_m): [B, M, D, S] float64."""
    size, components, positions = prediction.shape
    rows = torch.arange(size * positions)
    return prediction.log_probs(rows).double().exp().view(size, positions, components, -1).transpose(1, 2)


def reverse_matrix(process: ForwardProcess, posterior: Tensor, states: Tensor, t: float, s: float) -> Tensor:
    """The true q_{s|t}(x_s | x_t) = Σ_{x_0} p(x_0 | x_t) ∏_d q(x_s^d | x_t^d, x_0^d): [S^D, S^D].

    posterior: p(x_0 | x_t) over the clean `states` [K, D]: [S^D, K].
    """
    x_t = every_state(process.num_states, states.shape[1])
    rows = bridge(process, t, s)[x_t[:, None], states]  # [S^D, K, D, S]
    return torch.einsum("ak,akb->ab", posterior, product_law(rows, x_t))


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """½ Σ_x |p(x) − q(x)| over the last dimension."""
    return (p - q).abs().sum(-1) / 2


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Σ_x p(x) log p(x)/q(x) over the last dimension, nats; ∞ where q misses mass of p."""
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)
