"""Row values of a prediction with an affine readout, chunk by chunk, with gradients written by hand.

The forward pass reads a chunk's logits, reduces and drops them; the backward pass reads them once more and needs no autograd
graph. What the joint's posterior weights do arrives through the gradient of the chosen log-probabilities.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from di4c.algorithm.affine import Affine, Rows, lowered, rows_at_a_time, run_eagerly, widened, within_readout
from di4c.algorithm.linear_chunk import ChunkQuery, chunk_gradient, chunk_values
from di4c.algorithm.target import Marginals
from di4c.contracts import Prediction

NAMES = ("chosen", "kl", "componentwise_kl")


@dataclass(frozen=True)
class RowQuery:
    """A query at the R rows: tokens [R, N], the target's marginals, and which of NAMES are needed."""

    needs: frozenset
    tokens: Tensor | None = None
    target: Marginals | None = None


@dataclass(frozen=True)
class Plan:
    """What a pass over the rows needs beside features and weights."""

    rows: Rows
    queries: list[RowQuery]
    log_weights: Tensor
    excluded: tuple[int, ...]
    at_a_time: int
    own_readout: torch.nn.Module

    def chunks(self) -> Iterator[slice]:
        """Slices of the rows; as many as the data ask for, since all of them run in one call of the readout."""
        return (slice(start, start + self.at_a_time) for start in range(0, len(self.rows), self.at_a_time))

    def chunk_queries(self, chunk: slice, affine: Affine) -> list[ChunkQuery]:
        """The queries at the rows of a chunk; marginals that two queries share are read once."""
        number, read = self.rows.number[chunk], {}
        found = []
        for query in self.queries:
            q = None
            if query.target is not None:
                key = id(query.target.prediction)
                if key not in read:
                    read[key] = query.target.probs(number, self.own_readout, affine).to(self.log_weights)
                q = read[key]
            found.append(ChunkQuery(query.needs, None if query.tokens is None else query.tokens[chunk], q))
        return found

    def logits(self, features: Tensor, chunk: slice, affine: Affine) -> tuple[Tensor, Tensor]:
        """(h [P·M, H], logits [P, M, S]) of a chunk, excluded states lowered."""
        rows = self.rows
        h = features[rows.example[chunk], :, rows.column[chunk]]
        return h.flatten(0, 1), lowered(affine(h, rows.position[chunk]), self.excluded)


@run_eagerly
def linear_row_values(
    prediction: Prediction, queries: list[RowQuery], rows: Rows, log_weights: Tensor, chunk_bytes: int
) -> list[dict[str, Tensor]]:
    """A dict a query: "chosen" [R, M, N], "kl" [R], "componentwise_kl" [R], those it needs; float32 at least."""
    wide = torch.float64 if prediction.features.dtype == torch.float64 else torch.float32
    plan = Plan(
        rows, queries, log_weights.detach().to(wide), prediction.parameterisation.excluded,
        rows_at_a_time(prediction, chunk_bytes), prediction.readout,
    )

    def read(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
        return _LinearSums.apply(features, affine.weight, affine.bias, affine.num_states, plan)

    values = iter(within_readout(prediction, rows.features, read))
    return [{name: next(values) for name in NAMES if name in query.needs} for query in queries]


class _LinearSums(torch.autograd.Function):
    """(features [E, M, F, H], W, b) → the queries' values, flattened in the order of queries and NAMES."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, bias: Tensor | None, num_states: int, plan: Plan) -> tuple[Tensor, ...]:
        ctx.save_for_backward(features, weight, bias)
        ctx.num_states, ctx.plan = num_states, plan
        affine = Affine(weight, bias, num_states)
        parts: list[list[Tensor]] = []
        with torch.autocast(features.device.type, enabled=False):
            for chunk in plan.chunks():
                _, logits = plan.logits(features, chunk, affine)
                values = chunk_values(logits, plan.log_weights, plan.chunk_queries(chunk, affine))
                parts.append([value[name] for value in values for name in NAMES if name in value])
        return tuple(torch.cat(column) for column in zip(*parts, strict=True)) if parts else _no_rows(plan)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias = ctx.saved_tensors
        affine, plan = Affine(weight, bias, ctx.num_states), ctx.plan
        total = _Gradients.zeros(features, affine, ctx.needs_input_grad[:3])
        with torch.autocast(features.device.type, enabled=False):
            for chunk in plan.chunks():
                h, logits = plan.logits(features, chunk, affine)
                given = _by_query(plan, [gradient[chunk] for gradient in gradients])
                total.add(plan, chunk, h, chunk_gradient(logits, plan.log_weights, plan.chunk_queries(chunk, affine), given))
        return *total.result(), None, None


@dataclass
class _Gradients:
    """Gradients with respect to features, weight and bias, summed over chunks; None where not needed. Sums are wide."""

    affine: Affine
    features: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def zeros(cls, features: Tensor, affine: Affine, needed: tuple[bool, ...]) -> "_Gradients":
        def zero(like: Tensor | None, wanted: bool, wide: bool) -> Tensor | None:
            dtype = None if like is None or not wide else widened(like.new_empty(0)).dtype
            return torch.zeros_like(like, dtype=dtype) if wanted and like is not None else None

        return cls(
            affine, zero(features, needed[0], False), zero(affine.weight, needed[1], True), zero(affine.bias, needed[2], True)
        )

    def add(self, plan: Plan, chunk: slice, h: Tensor, gradient: Tensor) -> None:
        """A chunk's part, from features h [P·M, H] and the logits' gradient [P, M, S]."""
        states, rows = self.affine.num_states, plan.rows
        flat = gradient.flatten(0, 1).to(self.affine.weight.dtype)
        if self.features is not None:
            back = (flat @ self.affine.weight[:states]).view(*gradient.shape[:2], -1)
            self.features[rows.example[chunk], :, rows.column[chunk]] = back
        if self.weight is not None:
            _add_product(self.weight[:states], flat, h)
        if self.bias is not None and self.bias.dim() == 1:
            self.bias[:states] += gradient.sum((0, 1))
        elif self.bias is not None:
            self.bias[:, :states].index_add_(0, rows.position[chunk], gradient.sum(1))

    def result(self) -> tuple[Tensor | None, ...]:
        """(features, weight, bias) in the dtypes of what they are gradients of."""
        affine = self.affine
        narrow = [None if g is None else g.to(of.dtype) for g, of in ((self.weight, affine.weight), (self.bias, affine.bias))]
        return self.features, *narrow


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += leftᵀ·right, [S, H] from [R, S] and [R, H]; total may be wider than the factors."""
    if total.dtype == left.dtype:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right


def _by_query(plan: Plan, gradients: list[Tensor]) -> list[dict[str, Tensor]]:
    values = iter(gradients)
    return [{name: next(values) for name in NAMES if name in query.needs} for query in plan.queries]


def _no_rows(plan: Plan) -> tuple[Tensor, ...]:
    """The values where no position is uncertain."""
    wide, components = plan.log_weights, len(plan.log_weights)
    shapes = [
        (0, components, query.tokens.shape[1]) if name == "chosen" else (0,)
        for query in plan.queries for name in NAMES if name in query.needs
    ]
    return tuple(wide.new_zeros(shape) for shape in shapes)
