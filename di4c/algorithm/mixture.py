"""Sums over positions and mixture components, without ever holding [B, M, D, S].

A Prediction is read out for a chunk of rows (b, d) with uncertainty at a time; each chunk is reduced to the few numbers the
losses need and read again in the backward pass. The joint log-sum-exp over λ is left to the estimator, after all chunks.

    affine readout, log-softmax     linear_sums    gradients written by hand, one call of the readout
    anything else                   here           autograd, a checkpoint a chunk
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from di4c.algorithm.affine import Rows, as_given, is_affine
from di4c.algorithm.linear_sums import linear_row_values
from di4c.algorithm.row_plan import NAMES, RowQuery
from di4c.algorithm.target import KEPT_CHUNKS, Marginals, TargetDraw, draw, draw_target, draw_with_marginals, mixture_log_weights
from di4c.contracts import CHUNK_BYTES, Prediction, Statistics

__all__ = [
    "KEPT_CHUNKS", "Marginals", "Query", "TargetDraw", "draw", "draw_target", "draw_with_marginals", "mixture_log_weights", "statistics",
]


@dataclass(frozen=True)
class Query:
    """What the mixture at x_t is scored against: samples x [B, N, D] int64, marginals q̄ of a target, or both.

    needs: fields of Statistics. target: a Prediction, or the Marginals that its pass has kept. sample_weights [N],
    target_joint [B, N, M], log_law [B, N]: as in Statistics, passed on.
    """

    needs: frozenset
    samples: Tensor | None = None
    target: Marginals | Prediction | None = None
    sample_weights: Tensor | None = None
    target_joint: Tensor | None = None
    log_law: Tensor | None = None


def statistics(
    prediction: Prediction, queries: list[Query], *, chunk_bytes: int = CHUNK_BYTES, fused: bool | None = None
) -> list[Statistics]:
    """The Statistics that each query needs, from one pass over the rows of `prediction` [B, M, D].

    Positions without uncertainty in x_t contribute nothing: there every component is certain, and so is the target.
    """
    log_weights = mixture_log_weights(prediction)
    if is_affine(prediction) and not log_weights.requires_grad:
        rows = Rows.active(prediction, chunk_bytes)
        number = rows.number
        row_queries = [_at_rows(query, number, prediction.x_t.shape[1]) for query in queries]
        found = linear_row_values(prediction, row_queries, rows, log_weights, chunk_bytes, fused)
    else:
        number, found = _generic_row_values(prediction, queries, log_weights, chunk_bytes)
    example = number // prediction.x_t.shape[1]
    return [
        _summed(query, values, example, len(prediction.x_t), log_weights, chunk_bytes)
        for query, values in zip(queries, found, strict=True)
    ]


def _at_rows(query: Query, number: Tensor, positions: int) -> RowQuery:
    """The query at rows b·D + d; the joint and the marginal sums both need the chosen log-probabilities."""
    needs, target = query.needs & {"kl", "componentwise_kl"}, query.target
    if isinstance(target, Prediction):
        target = Marginals(target)
    if not query.needs & {"joint", "marginal"}:
        return RowQuery(needs, target=target)
    tokens = query.samples[number // positions, :, number % positions]
    return RowQuery(needs | {"chosen"}, tokens, target if needs else None)


def _summed(
    query: Query, values: dict[str, Tensor], example: Tensor, size: int, log_weights: Tensor, chunk_bytes: int
) -> Statistics:
    """Row values added up by example."""
    block_bytes = chunk_bytes // 2
    sums = {name: _by_example(values[name], example, size, block_bytes) for name in ("kl", "componentwise_kl") if name in values}
    if "joint" in query.needs:
        sums["joint"] = rearrange(_by_example(values["chosen"], example, size, block_bytes), "b m n -> b n m")
    if "marginal" in query.needs:
        weighted = values["chosen"] + log_weights.to(values["chosen"])[:, None]
        sums["marginal"] = _by_example(weighted.logsumexp(1), example, size, block_bytes)
    given = {"target_joint": query.target_joint, "sample_weights": query.sample_weights, "log_law": query.log_law}
    return Statistics(log_weights=log_weights, **sums, **given)


def _generic_row_values(
    prediction: Prediction, queries: list[Query], log_weights: Tensor, chunk_bytes: int
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """(rows [R], a dict a query as `linear_row_values` gives) for any readout: autograd, a checkpoint a chunk."""
    numbers, parts = [], []
    for number in prediction.chunks(chunk_bytes):
        row_queries = [_at_rows(query, number, prediction.x_t.shape[1]) for query in queries]
        h = prediction.component_features(number)
        arguments = (prediction, row_queries, number, h, log_weights)
        recompute = torch.is_grad_enabled() and h.requires_grad
        values = checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False) if recompute else _chunk(*arguments)
        numbers.append(number)
        parts.append(values)
    found = [{name: torch.cat([part[k][name] for part in parts]) for name in parts[0][k]} for k in range(len(queries))]
    return torch.cat(numbers), found


def _chunk(
    prediction: Prediction, queries: list[RowQuery], number: Tensor, h: Tensor, log_weights: Tensor
) -> list[dict[str, Tensor]]:
    """The values of one chunk of rows, a dict a query."""
    log_p = prediction.log_probs_from(h, number)  # [P, M, S]
    marginals = {}
    for query in queries:
        if query.target is not None and id(query.target.prediction) not in marginals:
            marginals[id(query.target.prediction)] = query.target.probs(number).to(log_p)
    log_weights = log_weights.to(log_p)
    log_mean = None
    if any("kl" in query.needs for query in queries):
        log_mean = (log_p + log_weights[:, None]).logsumexp(1)  # [P, S]
    shared = [None if query.target is None else marginals[id(query.target.prediction)] for query in queries]
    with as_given(log_p):
        return [_values(query, log_p, log_mean, log_weights, q) for query, q in zip(queries, shared, strict=True)]


def _values(query: RowQuery, log_p: Tensor, log_mean: Tensor | None, log_weights: Tensor, q: Tensor | None) -> dict[str, Tensor]:
    """"chosen" [P, M, N], "kl" [P] and "componentwise_kl" [P], those the query needs."""
    values = {}
    if "chosen" in query.needs:
        values["chosen"] = log_p.gather(-1, query.tokens[:, None].expand(-1, log_p.shape[1], -1))
    if q is not None:
        negative_entropy = torch.special.xlogy(q, q).sum(-1)
    if "kl" in query.needs:
        values["kl"] = negative_entropy - (q * log_mean).sum(-1)
    if "componentwise_kl" in query.needs:
        values["componentwise_kl"] = negative_entropy - torch.einsum("ps,pms->pm", q, log_p) @ log_weights.exp()
    return {name: values[name] for name in NAMES if name in values}


def _by_example(value: Tensor, example: Tensor, size: int, block_bytes: int) -> Tensor:
    """Row values [R, …] added up by example, [size, …] float64, turned into float64 a block at a time.

    A joint is of order −D·log S: in float32 its rounding alone, 1e-3 at D = 1024, shows in the posterior weights.
    """
    total = value.new_zeros(size, *value.shape[1:], dtype=torch.float64)
    rows = max(1, block_bytes // (8 * math.prod(value.shape[1:])))
    for some, of in zip(value.split(rows), example.split(rows), strict=True):
        total = total.index_add(0, of, some.double())
    return total
