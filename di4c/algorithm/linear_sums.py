"""Row values of a prediction with an affine readout, chunk by chunk, with gradients written by hand.

The forward pass reads a chunk's logits, reduces and drops them; the backward pass reads them once more and needs no autograd
graph. What the joint's posterior weights do arrives through the gradient of the chosen log-probabilities.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from di4c.algorithm.affine import Affine, Rows, as_given, autocast_dtype, rows_at_a_time, widened, within_readout
from di4c.algorithm.fused import FusedSums, fused_applies
from di4c.algorithm.linear_chunk import chunk_gradient, chunk_values
from di4c.algorithm.row_plan import NAMES, Plan, RowQuery, by_query, no_rows, room_for_logits
from di4c.algorithm.workspace import Workspace
from di4c.contracts import Prediction
from di4c.eager import run_eagerly


@run_eagerly
def linear_row_values(
    prediction: Prediction, queries: list[RowQuery], rows: Rows, log_weights: Tensor, chunk_bytes: int, fused: bool | None = None
) -> list[dict[str, Tensor]]:
    """A dict a query: "chosen" [R, M, N], "kl" [R], "componentwise_kl" [R], those it needs; float32 at least.

    fused: as in fused_applies.
    """
    fused = fused_applies(prediction, fused)
    at_a_time = rows_at_a_time(prediction, room_for_logits(queries, chunk_bytes))
    if fused and all(query.target is None or query.target.cheap for query in queries):
        at_a_time *= prediction.components  # no logits of components exist beside the targets' [P, S]
    plan = Plan(
        rows, queries, log_weights.detach().to(prediction.wide), prediction.parameterisation.excluded, at_a_time, prediction.readout,
        autocast_dtype(rows.features),
    )  # fmt: skip
    sums = FusedSums if fused else _LinearSums

    def read(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
        return sums.apply(features, affine.weight, affine.bias, affine.num_states, plan)

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
        with as_given(features):
            room = plan.workspace(affine)
            for chunk in plan.chunks():
                values = _values(plan, chunk, features, affine, room)
                parts.append([value[name] for value in values for name in NAMES if name in value])
        return tuple(torch.cat(column) for column in zip(*parts, strict=True)) if parts else no_rows(plan)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias = ctx.saved_tensors
        affine, plan = Affine(weight, bias, ctx.num_states), ctx.plan
        total = _Gradients.zeros(features, affine, ctx.needs_input_grad[:3])
        with as_given(features):
            room = plan.workspace(affine)
            for chunk in plan.chunks():
                total.add(plan, chunk, *_logits_gradient(plan, chunk, features, affine, gradients, room))
        return *total.result(), None, None


def _values(plan: Plan, chunk: slice, features: Tensor, affine: Affine, room: Workspace) -> list[dict[str, Tensor]]:
    """`chunk_values` of a chunk."""
    queries = plan.chunk_queries(chunk, affine, room)
    room = room.first(len(plan.rows.number[chunk]))
    _, logits = plan.logits(features, chunk, affine, room.logits)
    return chunk_values(logits, plan.log_weights, queries, room.scratch)


def _logits_gradient(
    plan: Plan, chunk: slice, features: Tensor, affine: Affine, gradients: tuple[Tensor, ...], room: Workspace
) -> tuple[Tensor, Tensor]:
    """(h [P·M, H], gradient [P, M, S]) of a chunk; the gradient is in `room`."""
    queries = plan.chunk_queries(chunk, affine, room)
    given = by_query(plan, [gradient[chunk] for gradient in gradients])
    room = room.first(len(plan.rows.number[chunk]))
    h, logits = plan.logits(features, chunk, affine, room.logits)
    return h, chunk_gradient(logits, plan.log_weights, queries, given, room.scratch)


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
            self.bias[:, :states].index_add_(0, rows.position[chunk], gradient.sum(1).to(self.bias))

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
