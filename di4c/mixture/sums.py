"""Sums over positions and mixture components, without ever holding [B, M, D, S]; reference.py says what they are.

A Prediction is read out for a chunk of rows (b, d) with uncertainty at a time; each chunk is reduced to the few numbers the
losses need and read again in the backward pass. The joint log-sum-exp over λ is left to the estimator, after all chunks.

    affine output head, log-softmax     chunked.py    gradients written by hand, one call of the head
    anything else                       here          the reference on a chunk, a checkpoint each
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Prediction, Statistics
from di4c.contracts.sharing import Sharing
from di4c.kernels.adding import at_tokens
from di4c.kernels.backend import chunk_budget
from di4c.mixture.affine import as_given
from di4c.mixture.chunked import Scored, row_values_of
from di4c.mixture.equal_inputs import Places
from di4c.mixture.marginals import Marginals, mixture_log_weights
from di4c.mixture.reference import dense_sums
from di4c.mixture.rows import Rows, recomputed

DIVERGENCES = ("kl", "componentwise_kl")
"""The fields of Statistics that compare with a target's marginals."""


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
    sources = {id(query.target): query.target for query in queries if query.needs & set(DIVERGENCES)}
    if any(getattr(target, "sharing", None) is not prediction.sharing for target in sources.values()):
        prediction = prediction.for_examples()
    targets = [_marginals(target, prediction.sharing) for target in sources.values()]
    samples = [query.samples for query in queries if query.number]
    kl, componentwise = (any(name in query.needs for query in queries) for name in DIVERGENCES)
    places = Places.of(prediction, chunk_bytes // 2)
    scored = Scored(log_weights, torch.cat(samples, 1) if samples else None, targets, kl, componentwise, places.pairs)
    if prediction.is_affine and not log_weights.requires_grad:
        rows = Rows.at(prediction, places.number, chunk_bytes)
        chosen, *divergences = row_values_of(prediction, rows, scored, chunk_bytes)
    else:
        chosen, *divergences = _generic_values(prediction, places.number, scored, chunk_bytes)
    of_target = dict(zip(sources, zip(*divergences, strict=True), strict=True))
    of_query = chosen.split([query.number for query in queries], -1)
    return [
        _summed(places, query, some, of_target.get(id(query.target), ()), log_weights)
        for query, some in zip(queries, of_query, strict=True)
    ]


def _summed(
    places: Places, query: Query, chosen: Tensor, divergences: tuple[Tensor, ...], log_weights: Tensor
) -> Statistics:
    """Row values added up by example: chosen [R, M, N] (or of pairs), and of the query's target its DIVERGENCES [R]."""
    named = zip(DIVERGENCES, divergences, strict=False)
    sums = {name: places.sum_of_rows(value) for name, value in named if name in query.needs}
    if "joint" in query.needs:
        sums["joint"] = places.sum_of_samples(chosen).transpose(1, 2)
    if "marginal" in query.needs:
        weighted = chosen + log_weights.to(chosen)[:, None]
        sums["marginal"] = places.sum_of_samples(weighted.logsumexp(1))
    given = {"target_joint": query.target_joint, "sample_weights": query.sample_weights, "log_law": query.log_law}
    return Statistics(log_weights=log_weights, **sums, **given)


def _marginals(target: Marginals | Prediction, sharing: Sharing | None) -> Marginals:
    """Of the inputs where they are shared, else of examples."""
    if isinstance(target, Marginals):
        return target
    return Marginals(target.for_examples() if sharing is None else target)


def _generic_values(prediction: Prediction, number: Tensor, scored: Scored, chunk_bytes: int) -> tuple[Tensor, ...]:
    """As `row_values_of` of the rows, for any output head: the reference, a checkpoint a chunk."""
    needs = frozenset(itertools.compress(DIVERGENCES, (scored.kl, scored.componentwise)))
    targets, log_weights = scored.targets, scored.log_weights

    def read(
        number: Tensor, h: Tensor, log_weights: Tensor, tokens: Tensor | None, row: Tensor | None
    ) -> tuple[Tensor, ...]:
        log_p = prediction.log_probs_from(h, number)  # [P, M, S]
        q = torch.stack([target.probs(number).to(log_p) for target in targets])[:, :, None] if targets else None
        with as_given(log_p):
            every = torch.ones(len(number), 1, dtype=torch.bool, device=number.device)
            found = dense_sums(log_p[:, :, None], every, log_weights, None, q, needs)
            chosen = log_p.new_zeros(*log_p.shape[:2], 0) if tokens is None else at_tokens(log_p, tokens, row)
        nothing = log_p.new_zeros(len(targets), len(number))
        return chosen, *(found.get(name, nothing) for name in DIVERGENCES)

    sizes = map(len, number.tensor_split(prediction.number_of_chunks(chunk_bytes)))
    bounds = itertools.accumulate(sizes, initial=0)
    parts = []
    for chunk in scored.chunks(itertools.starmap(slice, itertools.pairwise(bounds))):
        some = number[chunk.rows]
        h = prediction.component_features(some)
        differentiated = h.requires_grad or log_weights.requires_grad
        parts.append(recomputed(read, some, h, log_weights, *scored.lines(number, chunk), when=differentiated))
    chosen, *divergences = zip(*parts, strict=True)
    return torch.cat(chosen), *(torch.cat(each, 1) for each in divergences)
