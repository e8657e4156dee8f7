"""The sums that the losses need of one chunk of logits, and their gradient, written by hand.

With ℓ_m = log-softmax of the logits of component m, p_m = exp ℓ_m and p̄ = Σ_m w_m p_m, a row gives

    chosen            ℓ_m(x_n)
    kl                Σ_s q(s) log q(s)/p̄(s)
    componentwise_kl  Σ_m w_m Σ_s q(s) log q(s)/p_m(s)

and for incoming gradients g of these, the gradient with respect to the logits is A_m − p_m Σ_s A_m(s), where

    A_m(s) = Σ_n g_chosen[m, n] [s = x_n] − g_kl q(s) w_m p_m(s)/p̄(s) − g_componentwise w_m q(s).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChunkQuery:
    """What the P rows of a chunk are scored against: tokens x [P, N], marginals q [P, S], and which sums are needed."""

    needs: frozenset
    tokens: Tensor | None = None
    q: Tensor | None = None


def chunk_values(logits: Tensor, log_weights: Tensor, queries: list[ChunkQuery], scratch: Tensor) -> list[dict[str, Tensor]]:
    """A dict a query of what it needs: "chosen" [P, M, N], "kl" [P], "componentwise_kl" [P]; logits [P, M, S] float32.

    scratch: as logits, overwritten.
    """
    weights = log_weights.exp()
    log_mean = None
    relevant = _pointwise_max([query.q for query in queries if "kl" in query.needs])
    p = torch.softmax(logits, -1, out=scratch)
    log_normaliser = logits.amax(-1) - p.amax(-1).log()
    if relevant is not None:
        log_mean = _log_of_mean(torch.matmul(weights, p), relevant, logits, log_normaliser, log_weights)
    return [_values(query, logits, log_normaliser, log_mean, weights) for query in queries]


def _values(query: ChunkQuery, logits: Tensor, log_normaliser: Tensor, log_mean: Tensor | None, weights: Tensor) -> dict:
    values = {}
    if "chosen" in query.needs:
        index = query.tokens[:, None].expand(-1, logits.shape[1], -1)
        values["chosen"] = logits.gather(-1, index) - log_normaliser[..., None]
    if query.q is not None:
        negative_entropy = torch.special.xlogy(query.q, query.q).sum(-1)
    if "kl" in query.needs:
        values["kl"] = negative_entropy - (query.q * log_mean).sum(-1)
    if "componentwise_kl" in query.needs:
        cross = torch.bmm(logits, query.q[..., None]).squeeze(-1) - log_normaliser * query.q.sum(-1, keepdim=True)
        values["componentwise_kl"] = negative_entropy - cross @ weights
    return values


def chunk_gradient(
    logits: Tensor, log_weights: Tensor, queries: list[ChunkQuery], gradients: list[dict[str, Tensor]], scratch: Tensor
) -> Tensor:
    """The gradient with respect to logits [P, M, S], from those of each query's values. Overwrites the logits and scratch, like them."""
    weights = log_weights.exp()
    pull, push = _weighted_marginals(queries, gradients, "kl"), _weighted_marginals(queries, gradients, "componentwise_kl")
    relevant = _pointwise_max([query.q for query in queries if "kl" in query.needs])
    p = torch.softmax(logits, -1, out=scratch)
    row_sum = _chosen_sums(gradients, p)
    if relevant is not None:
        mean = torch.matmul(weights, p)
        if _underflows(mean, relevant):
            return _gradient_in_logs(logits, log_weights, queries, gradients, pull, push)
        ratio = pull / mean.clamp_min(_tiny(mean))
        row_sum = row_sum - weights * torch.bmm(p, ratio[..., None]).squeeze(-1)
    if push is not None:
        row_sum = row_sum - weights * push.sum(-1, keepdim=True)
    if relevant is None:
        gradient = p.mul_(-row_sum[..., None])
    else:  # p_m(s)·(−row_sum_m − w_m·ratio(s)): the factor is a sum of two outer products
        left = torch.stack([-row_sum, -weights.expand_as(row_sum)], -1)
        right = torch.stack([torch.ones_like(ratio), ratio], 1)
        gradient = p.mul_(torch.bmm(left, right, out=logits))
    if push is not None:
        gradient.baddbmm_(-weights.expand_as(row_sum)[..., None], push[:, None])
    return _scatter_chosen(gradient, queries, gradients)


def _gradient_in_logs(
    logits: Tensor, log_weights: Tensor, queries: list, gradients: list, pull: Tensor | None, push: Tensor | None
) -> Tensor:
    """The same without dividing by p̄, where p̄ underflows at a state that counts: responsibilities as a softmax over m."""
    log_p = logits.log_softmax(-1)
    responsibility = (log_p + log_weights[:, None]).softmax(1)  # w_m p_m(s) / p̄(s)
    a = responsibility.mul_(-pull[:, None])
    if push is not None:
        a = a - log_weights.exp()[:, None] * push[:, None]
    a = _scatter_chosen(a, queries, gradients)
    return a.addcmul_(log_p.exp_(), a.sum(-1, keepdim=True), value=-1)


def _scatter_chosen(gradient: Tensor, queries: list[ChunkQuery], gradients: list[dict[str, Tensor]]) -> Tensor:
    """Adds g_chosen at the chosen states, in place."""
    for query, given in zip(queries, gradients, strict=True):
        if "chosen" in given:
            gradient.scatter_add_(-1, query.tokens[:, None].expand_as(given["chosen"]), given["chosen"])
    return gradient


def _chosen_sums(gradients: list[dict[str, Tensor]], like: Tensor) -> Tensor:
    """Σ_n g_chosen over all queries: [P, M]."""
    sums = [given["chosen"].sum(-1) for given in gradients if "chosen" in given]
    return torch.stack(sums).sum(0) if sums else like.new_zeros(like.shape[:2])


def _weighted_marginals(queries: list[ChunkQuery], gradients: list[dict[str, Tensor]], name: str) -> Tensor | None:
    """Σ over queries of g·q for one kind of divergence: [P, S], or None where there is none."""
    parts = [query.q * given[name][:, None] for query, given in zip(queries, gradients, strict=True) if name in given]
    return sum(parts[1:], parts[0]) if parts else None


def _log_of_mean(mean: Tensor, relevant: Tensor, logits: Tensor, log_normaliser: Tensor, log_weights: Tensor) -> Tensor:
    """log p̄: [P, S], by logarithms throughout where p̄ underflows at a state that counts."""
    if _underflows(mean, relevant):
        return (logits - log_normaliser[..., None] + log_weights[:, None]).logsumexp(1)
    return mean.clamp_min(_tiny(mean)).log_()


def _underflows(mean: Tensor, relevant: Tensor) -> bool:
    """Whether p̄ is too small to divide by at a state where q is not negligible (then q·log p̄ and q/p̄ count).

    On a GPU the answer is always yes: asking would wait for the device.
    """
    negligible = torch.finfo(mean.dtype).eps ** 2
    return mean.is_cuda or bool(((mean < _tiny(mean)) & (relevant > negligible)).any())


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny * 1e8


def _pointwise_max(tensors: list[Tensor]) -> Tensor | None:
    largest = tensors[0] if tensors else None
    for tensor in tensors[1:]:
        largest = torch.maximum(largest, tensor)
    return largest
