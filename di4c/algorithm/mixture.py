"""Sums over positions and mixture components, without ever holding [B, M, D, S].

A Prediction is read out for a chunk of rows (b, d) with uncertainty at a time; each chunk is reduced to the few sums the
losses need and recomputed in the backward pass. The joint log-sum-exp over λ is left to the estimator, after all chunks.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from di4c.contracts import CHUNK_BYTES, Draws, Prediction, Statistics, categorical

@dataclass(frozen=True)
class Query:
    """What the mixture at x_t is scored against: samples x [B, N, D] int64, a target whose λ-average is q̄, or both."""

    needs: frozenset
    samples: Tensor | None = None
    target: Prediction | None = None


def statistics(prediction: Prediction, queries: list[Query], *, chunk_bytes: int = CHUNK_BYTES) -> list[Statistics]:
    """The Statistics that each query needs, from one pass over the rows of `prediction` [B, M, D].

    Positions without uncertainty in x_t contribute nothing: there every component is certain, and so is the target.
    """
    size, components, _ = prediction.shape
    log_weights = mixture_log_weights(prediction)
    totals = [_zeros(query, size, components, prediction.features) for query in queries]
    for rows in prediction.chunks(chunk_bytes):
        h = prediction.component_features(rows)
        if torch.is_grad_enabled() and h.requires_grad:
            parts = checkpoint(
                _chunk, prediction, queries, rows, h, log_weights, use_reentrant=False, preserve_rng_state=False
            )
        else:
            parts = _chunk(prediction, queries, rows, h, log_weights)
        totals = [_add(total, part) for total, part in zip(totals, parts, strict=True)]
    return [Statistics(log_weights=log_weights, **total) for total in totals]


def mixture_log_weights(prediction: Prediction) -> Tensor:
    """log w_m: [M] float64, equal weights unless the prediction carries its own."""
    if prediction.log_weights is not None:
        return prediction.log_weights.to(prediction.features.device)
    components = prediction.shape[1]
    return torch.full((components,), -math.log(components), dtype=torch.float64, device=prediction.features.device)


def draw(target: Prediction, draws: Draws, *, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """One x_0 from each component, x_n ~ ∏_d p^d(· | x_u; λ_n): [B, N, D] int64, N the number of components.

    Positions without uncertainty keep their token.
    """
    size, components, positions = target.shape
    x = target.x_t[:, None, :].expand(size, components, positions).clone()
    uniform = draws.uniform(components, positions)
    for rows in target.chunks(chunk_bytes):
        example, position = rows // positions, rows % positions
        x[example, :, position] = categorical(target.log_probs(rows).exp(), uniform[example, :, position])
    return x


def _chunk(prediction: Prediction, queries: list[Query], rows: Tensor, h: Tensor, log_weights: Tensor) -> list[dict]:
    """The sums of one chunk of rows, an entry a needed statistic: joint [B, N, M], marginal [B, N], kl [B], …"""
    size, _, positions = prediction.shape
    example, position = rows // positions, rows % positions
    log_p = prediction.log_probs_from(h, rows)  # [P, M, S]
    wanted = frozenset().union(*(query.needs for query in queries))
    log_mean = (log_p + log_weights.to(log_p)[:, None]).logsumexp(1) if wanted & {"marginal", "kl"} else None  # [P, S]
    parts = []
    for query in queries:
        part = {}
        x = query.samples[example, :, position] if query.samples is not None else None  # [P, N]
        if "joint" in query.needs:
            gathered = log_p.gather(-1, x[:, None].expand(-1, log_p.shape[1], -1))
            part["joint"] = rearrange(gathered, "p m n -> p n m")
        if "marginal" in query.needs:
            part["marginal"] = log_mean.gather(-1, x)
        if query.needs & {"kl", "componentwise_kl"}:
            part |= _divergences(query, rows, log_p, log_mean, log_weights)
        parts.append({name: _sum_by_example(value, example, size) for name, value in part.items()})
    return parts


def _divergences(query: Query, rows: Tensor, log_p: Tensor, log_mean: Tensor | None, log_weights: Tensor) -> dict:
    """KL(q̄ ‖ p̄) and Σ_m w_m KL(q̄ ‖ p_m), those that are needed: [P] each."""
    with torch.no_grad():
        log_q = query.target.average().log_probs(rows)[:, 0].to(log_p)  # [P, S]
        q = log_q.exp()
        negative_entropy = (q * log_q).sum(-1)
    part = {}
    if "kl" in query.needs:
        part["kl"] = negative_entropy - (q * log_mean).sum(-1)
    if "componentwise_kl" in query.needs:
        cross = torch.einsum("ps,pms->pm", q, log_p)
        part["componentwise_kl"] = negative_entropy - cross @ log_weights.to(log_p).exp()
    return part


def _sum_by_example(value: Tensor, example: Tensor, size: int) -> Tensor:
    return value.new_zeros(size, *value.shape[1:]).index_add(0, example, value)


def _zeros(query: Query, size: int, components: int, like: Tensor) -> dict:
    """The sums of no rows at all."""
    samples = query.samples.shape[1] if query.samples is not None else 0
    shapes = {"joint": (size, samples, components), "marginal": (size, samples)}
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return {name: torch.zeros(shapes.get(name, (size,)), dtype=dtype, device=like.device) for name in sorted(query.needs)}


def _add(total: dict, part: dict) -> dict:
    return {name: value + part[name] for name, value in total.items()}
