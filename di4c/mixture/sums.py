"""Sums over positions and mixture components, without ever holding [B, M, D, S]; reference.py says what they are.

A Prediction is read out for a chunk of rows (b, d) with uncertainty at a time; each chunk is reduced to the few numbers the
losses need and read again in the backward pass. The joint log-sum-exp over λ is left to the estimator, after all chunks.

    affine output head, log-softmax     chunked.py    gradients written by hand, one call of the head
    anything else                       here          the reference on a chunk, a checkpoint each
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from di4c.contracts import Prediction, Statistics
from di4c.contracts.sharing import Sharing
from di4c.kernels.backend import chunk_budget
from di4c.mixture.affine import as_given, is_affine
from di4c.mixture.chunked import Scored, row_values_of
from di4c.mixture.marginals import Marginals, mixture_log_weights
from di4c.mixture.reference import dense_sums
from di4c.mixture.rows import Pairs, Rows, sum_by_example, uncertain_rows


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

    Where examples share its inputs, every input is read once, and the samples of all its examples are scored there; their targets'
    marginals must be of the same inputs, else (a target at x_u) the prediction is read for every example.
    Positions without uncertainty in x_t contribute nothing: there every component is certain, and so is the target.
    chunk_bytes: what a chunk's logits may take; None is the budget of the device.
    """
    chunk_bytes = chunk_bytes or chunk_budget(prediction.x_t.device)
    log_weights = mixture_log_weights(prediction)
    sources = {id(query.target): query.target for query in queries if query.needs & {"kl", "componentwise_kl"}}
    if any(_sharing(target) is not prediction.sharing for target in sources.values()):
        prediction = prediction.for_examples()
    targets = [_marginals(target, prediction.sharing) for target in sources.values()]
    samples = [query.samples for query in queries if query.number]
    kl, componentwise = (any(name in query.needs for query in queries) for name in ("kl", "componentwise_kl"))
    places = Places.of(prediction)
    scored = Scored(log_weights, torch.cat(samples, 1) if samples else None, targets, kl, componentwise, places.pairs)
    read = _affine_values if is_affine(prediction) and not log_weights.requires_grad else _generic_values
    chosen, *divergences = read(prediction, places.number, scored, chunk_bytes)
    order, start, found = {key: k for k, key in enumerate(sources)}, 0, []
    for query in queries:
        values = {
            name: each[order[id(query.target)]]
            for name, each in zip(("kl", "componentwise_kl"), divergences, strict=True)
            if name in query.needs
        }
        some = chosen[..., start : start + query.number]
        found.append(_summed(query, some, values, places, log_weights, chunk_bytes // 2))
        start += query.number
    return found


@dataclass(frozen=True)
class Places:
    """The uncertain rows of a prediction, number [R], where examples share them with their pairs, and how both add up by example."""

    number: Tensor
    positions: int
    size: int
    sharing: Sharing | None
    pairs: Pairs | None

    @classmethod
    def of(cls, prediction: Prediction) -> "Places":
        number, (size, positions), sharing = uncertain_rows(prediction), prediction.x_t.shape, prediction.sharing
        pairs = None if sharing is None else Pairs.of(sharing, number, positions)
        return cls(number, positions, size, sharing, pairs)

    def sum_of_rows(self, values: Tensor, block_bytes: int) -> Tensor:
        """Values of rows [R, …] added up: [B, …] float64."""
        total = sum_by_example(values, self.number, self.positions, self.size, block_bytes)
        return total if self.sharing is None else total[self.sharing.of]

    def sum_of_samples(self, values: Tensor, block_bytes: int) -> Tensor:
        """Values [R, …], or [Q, …] of pairs, added up: [B, …] float64."""
        if self.pairs is None:
            return self.sum_of_rows(values, block_bytes)
        return sum_by_example(values, self.pairs.number, self.positions, len(self.sharing.of), block_bytes)


def _sharing(target: Marginals | Prediction) -> Sharing | None:
    return target.sharing if isinstance(target, Prediction) else None


def _marginals(target: Marginals | Prediction, sharing: Sharing | None) -> Marginals:
    """Of the inputs where they are shared, else of examples."""
    if isinstance(target, Marginals):
        return target
    return Marginals(target.for_examples() if sharing is None else target)


def _affine_values(prediction: Prediction, number: Tensor, scored: Scored, chunk_bytes: int) -> tuple[Tensor, ...]:
    """(chosen [R, M, ΣN], kl [J, R], componentwise [J, R]) of the rows; with pairs, chosen is [Q, M, ΣN]."""
    return row_values_of(prediction, Rows.at(prediction, number, chunk_bytes), scored, chunk_bytes)


def _generic_values(prediction: Prediction, number: Tensor, scored: Scored, chunk_bytes: int) -> tuple[Tensor, ...]:
    """The same for any output head: the reference, a checkpoint a chunk."""
    needs = frozenset(name for name, here in (("kl", scored.kl), ("componentwise_kl", scored.componentwise)) if here)
    targets, log_weights = scored.targets, scored.log_weights

    def read(
        number: Tensor, h: Tensor, log_weights: Tensor, row: Tensor | None, tokens: Tensor | None
    ) -> tuple[Tensor, ...]:
        log_p = prediction.log_probs_from(h, number)  # [P, M, S]
        q = torch.stack([target.probs(number).to(log_p) for target in targets])[:, :, None] if targets else None
        with as_given(log_p):
            every = torch.ones(len(number), 1, dtype=torch.bool, device=number.device)
            found = dense_sums(log_p[:, :, None], every, log_weights, None, q, needs)
            chosen = _chosen(log_p, row, tokens)
        nothing = log_p.new_zeros(len(targets), len(number))
        return chosen, found.get("kl", nothing), found.get("componentwise_kl", nothing)

    parts = []
    for some, *lines in _chunks(number, scored, prediction.number_of_chunks(chunk_bytes)):
        h = prediction.component_features(some)
        recompute = torch.is_grad_enabled() and (h.requires_grad or log_weights.requires_grad)
        arguments = (some, h, log_weights, *lines)
        parts.append(
            checkpoint(read, *arguments, use_reentrant=False, preserve_rng_state=False)
            if recompute
            else read(*arguments)
        )
    chosen, *divergences = zip(*parts, strict=True)
    return torch.cat(chosen), *(torch.cat(each, 1) for each in divergences)


def _chunks(number: Tensor, scored: Scored, chunks: int) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
    """(rows [P], row of each line within them or None, tokens [Q, ΣN] or None) of so many chunks."""
    parts = number.tensor_split(chunks)
    if scored.pairs is None:
        yield from ((part, None, scored.tokens(part)) for part in parts)
        return
    bounds = list(itertools.accumulate((len(part) for part in parts), initial=0))
    for part, start, some in zip(parts, bounds, scored.pairs.cut(bounds), strict=False):
        yield part, scored.pairs.row[some] - start, scored.tokens(scored.pairs.number[some])


def _chosen(log_p: Tensor, row: Tensor | None, tokens: Tensor | None) -> Tensor:
    """log p_m(x_n) of log p [P, M, S]: [P, M, N], or [Q, M, N] where lines share rows."""
    if tokens is None:
        return log_p.new_zeros(*log_p.shape[:2], 0)
    if row is None:
        return log_p.gather(-1, tokens[:, None].expand(-1, log_p.shape[1], -1))
    return log_p.transpose(1, 2)[row[:, None], tokens].transpose(1, 2)


def _summed(
    query: Query, chosen: Tensor, divergences: dict[str, Tensor], places: Places, log_weights: Tensor, block_bytes: int
) -> Statistics:
    """Row values added up by example."""
    sums = {name: places.sum_of_rows(value, block_bytes) for name, value in divergences.items()}
    if "joint" in query.needs:
        sums["joint"] = rearrange(places.sum_of_samples(chosen, block_bytes), "b m n -> b n m")
    if "marginal" in query.needs:
        weighted = chosen + log_weights.to(chosen)[:, None]
        sums["marginal"] = places.sum_of_samples(weighted.logsumexp(1), block_bytes)
    given = {"target_joint": query.target_joint, "sample_weights": query.sample_weights, "log_law": query.log_law}
    return Statistics(log_weights=log_weights, **sums, **given)
