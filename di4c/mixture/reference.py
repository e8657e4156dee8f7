"""The mixture's sums as the paper writes them: every tensor [B, M, D, S] exists, autograd does the rest.

It documents what the chunked pass computes, the tests compare with it in float64, and tools/bench.py measures against it.
"""

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO

ALL = frozenset({"joint", "marginal", "kl", "componentwise_kl"})


def dense_logits(features: Tensor, weight: Tensor, bias: Tensor | None, components: int) -> Tensor:
    """h·Wᵀ + b: [B, M, D, S] from features [B·M, D, H], W [S, H] and b [S], [D, S] or None."""
    logits = features @ weight.T
    logits = logits if bias is None else logits + bias
    return logits.unflatten(0, (-1, components))


def dense_log_probs(logits: Tensor, x_t: Tensor, mask_index: int | None) -> Tensor:
    """log p(x_0 | x_t; λ_m): [B, M, D, S]; with a mask index by SUBS (mask forbidden, visible tokens carried over)."""
    if mask_index is None:
        return logits.log_softmax(-1)
    states = torch.arange(logits.shape[-1], device=logits.device)
    log_p = (logits + torch.where(states == mask_index, LOG_ZERO, 0.0).to(logits)).log_softmax(-1)
    carried = torch.where(states == x_t[:, None, :, None], 0.0, LOG_ZERO).to(logits)
    return torch.where((x_t == mask_index)[:, None, :, None], log_p, carried)


def dense_sums(
    log_p: Tensor, active: Tensor, log_weights: Tensor, x: Tensor | None, q: Tensor | None, needs: frozenset = ALL
) -> dict[str, Tensor]:
    """The fields of Statistics over the active positions, from log p [B, M, D, S], active [B, D], x [B, N, D] and q [B, D, S]:

    joint [B, N, M]        Σ_d log p^d(x_n^d; λ_m)
    marginal [B, N]        Σ_d log p̄^d(x_n^d),                     p̄^d = Σ_m w_m p^d(·; λ_m)
    kl [B]                 Σ_d Σ_s q^d(s) log q^d(s) / p̄^d(s)
    componentwise_kl [B]   Σ_m w_m Σ_d Σ_s q^d(s) log q^d(s) / p^d(s; λ_m)

    A position that is not active is certain of the target's token too and adds nothing. Marginals of several targets may be
    stacked in front: q [J, B, D, S] gives kl [J, B].
    """
    active, log_weights = active.to(log_p), log_weights.to(log_p)
    sums = {}
    if needs & {"marginal", "kl"}:
        log_mean = (log_p + log_weights[:, None, None]).logsumexp(1)  # [B, D, S]
    if "joint" in needs:
        index = x.transpose(1, 2)[:, None].expand(-1, log_p.shape[1], -1, -1)  # [B, M, D, N]
        sums["joint"] = torch.einsum("bmdn,bd->bnm", log_p.gather(-1, index), active)
    if "marginal" in needs:
        sums["marginal"] = torch.einsum("bdn,bd->bn", log_mean.gather(-1, x.transpose(1, 2)), active)
    if needs & {"kl", "componentwise_kl"}:
        negative_entropy = torch.special.xlogy(q, q).sum(-1)  # [..., B, D]
    if "kl" in needs:
        sums["kl"] = ((negative_entropy - (q * log_mean).sum(-1)) * active).sum(-1)
    if "componentwise_kl" in needs:
        each = negative_entropy.unsqueeze(-2) - torch.einsum("...bds,bmds->...bmd", q, log_p)
        sums["componentwise_kl"] = torch.einsum("...bmd,m,bd->...b", each, log_weights.exp(), active)
    return sums


def dense_monte_carlo(sums: dict[str, Tensor], log_weights: Tensor) -> Tensor:
    """−log Σ_m w_m exp joint, averaged over the samples: [B]."""
    return -(sums["joint"] + log_weights.to(sums["joint"])).logsumexp(-1).mean(-1)


def dense_control_variate(sums: dict[str, Tensor], log_weights: Tensor) -> Tensor:
    """The same with the product of the mixture's marginals as control variate: + marginal, averaged, + kl: [B]."""
    return dense_monte_carlo(sums, log_weights) + sums["marginal"].mean(-1) + sums["kl"]
