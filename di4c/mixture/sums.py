"""Sums over positions and mixture components, without ever holding [B, M, D, S]; reference.py says what they are.

A Prediction is read out for a chunk of rows (b, d) with uncertainty at a time; each chunk is reduced to the few numbers the
losses need and read again in the backward pass. The joint log-sum-exp over λ is left to the estimator, after all chunks.

    affine output head, log-softmax     chunked.py    gradients written by hand, one call of the head
    anything else                       here          the reference on a chunk, a checkpoint each
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from di4c.contracts import Prediction, Statistics
from di4c.kernels.backend import chunk_budget
from di4c.mixture.affine import as_given, is_affine
from di4c.mixture.chunked import Scored, row_values_of
from di4c.mixture.marginals import Marginals, mixture_log_weights
from di4c.mixture.reference import dense_sums
from di4c.mixture.rows import Rows, sum_by_example, uncertain_rows


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

    @property
    def number(self) -> int:
        """How many of the samples are scored."""
        return self.samples.shape[1] if self.needs & {"joint", "marginal"} else 0


def statistics(prediction: Prediction, queries: list[Query], *, chunk_bytes: int | None = None) -> list[Statistics]:
    """The Statistics that each query needs, from one pass over the rows of `prediction` [B, M, D].

    Positions without uncertainty in x_t contribute nothing: there every component is certain, and so is the target.
    chunk_bytes: what a chunk's logits may take; None is the budget of the device.
    """
    chunk_bytes = chunk_bytes or chunk_budget(prediction.x_t.device)
    log_weights = mixture_log_weights(prediction)
    sources = {id(query.target): query.target for query in queries if query.needs & {"kl", "componentwise_kl"}}
    targets = [target if isinstance(target, Marginals) else Marginals(target) for target in sources.values()]
    samples = [query.samples for query in queries if query.number]
    kl, componentwise = (any(name in query.needs for query in queries) for name in ("kl", "componentwise_kl"))
    scored = Scored(log_weights, torch.cat(samples, 1) if samples else None, targets, kl, componentwise)
    read = _affine_values if is_affine(prediction) and not log_weights.requires_grad else _generic_values
    number, chosen, *divergences = read(prediction, scored, chunk_bytes)
    order, start, found = {key: k for k, key in enumerate(sources)}, 0, []
    for query in queries:
        values = {
            name: each[order[id(query.target)]]
            for name, each in zip(("kl", "componentwise_kl"), divergences, strict=True)
            if name in query.needs
        }
        found.append(
            _summed(
                query,
                chosen[..., start : start + query.number],
                values,
                number,
                prediction.x_t,
                log_weights,
                chunk_bytes,
            )
        )
        start += query.number
    return found


def _affine_values(prediction: Prediction, scored: Scored, chunk_bytes: int) -> tuple[Tensor, ...]:
    """(rows [R], chosen [R, M, ΣN], kl [J, R], componentwise [J, R])."""
    number = uncertain_rows(prediction)
    return number, *row_values_of(prediction, Rows.at(prediction, number, chunk_bytes), scored, chunk_bytes)


def _generic_values(prediction: Prediction, scored: Scored, chunk_bytes: int) -> tuple[Tensor, ...]:
    """The same for any output head: the reference, a checkpoint a chunk."""
    wanted = {"joint": scored.samples is not None, "kl": scored.kl, "componentwise_kl": scored.componentwise}
    needs, targets, log_weights = (
        frozenset(name for name, here in wanted.items() if here),
        scored.targets,
        scored.log_weights,
    )

    def read(number: Tensor, h: Tensor, log_weights: Tensor) -> tuple[Tensor, ...]:
        log_p = prediction.log_probs_from(h, number)  # [P, M, S]
        q = torch.stack([target.probs(number).to(log_p) for target in targets])[:, :, None] if targets else None
        tokens = scored.tokens(number)
        with as_given(log_p):
            every = torch.ones(len(number), 1, dtype=torch.bool, device=number.device)
            x = None if tokens is None else tokens[..., None]
            found = dense_sums(log_p[:, :, None], every, log_weights, x, q, needs)
        nothing = log_p.new_zeros(len(targets), len(number))
        chosen = (
            rearrange(found["joint"], "p n m -> p m n") if tokens is not None else log_p.new_zeros(*log_p.shape[:2], 0)
        )
        return chosen, found.get("kl", nothing), found.get("componentwise_kl", nothing)

    numbers, parts = [], []
    for number in prediction.chunks(chunk_bytes):
        h = prediction.component_features(number)
        recompute = torch.is_grad_enabled() and (h.requires_grad or log_weights.requires_grad)
        arguments = (number, h, log_weights)
        parts.append(
            checkpoint(read, *arguments, use_reentrant=False, preserve_rng_state=False)
            if recompute
            else read(*arguments)
        )
        numbers.append(number)
    chosen, *divergences = zip(*parts, strict=True)
    return torch.cat(numbers), torch.cat(chosen), *(torch.cat(each, 1) for each in divergences)


def _summed(
    query: Query,
    chosen: Tensor,
    divergences: dict[str, Tensor],
    number: Tensor,
    x_t: Tensor,
    log_weights: Tensor,
    chunk_bytes: int,
) -> Statistics:
    """Row values added up by example."""
    shape = (number, x_t.shape[1], len(x_t), chunk_bytes // 2)
    sums = {name: sum_by_example(value, *shape) for name, value in divergences.items()}
    if "joint" in query.needs:
        sums["joint"] = rearrange(sum_by_example(chosen, *shape), "b m n -> b n m")
    if "marginal" in query.needs:
        weighted = chosen + log_weights.to(chosen)[:, None]
        sums["marginal"] = sum_by_example(weighted.logsumexp(1), *shape)
    given = {"target_joint": query.target_joint, "sample_weights": query.sample_weights, "log_law": query.log_law}
    return Statistics(log_weights=log_weights, **sums, **given)
