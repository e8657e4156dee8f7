"""Row values of a prediction with an affine readout by Triton kernels that keep the logits on chip; gradients written by hand.

With resp_m(s) = w_m p_m(s)/p̄(s), all that needs every logit is, a row,

    the normalisers log Σ_s exp z_m(s),   Σ_s q(s) log p̄(s),   Σ_s q(s) resp_m(s),
    and, backwards, the gradient −pull(s) resp_m(s) − p_m(s)·(sum of it over s) times weights and features.

What the chosen tokens and the componentwise divergence add is of low rank and stays with torch: h·W_x, h·(Wᵀq). No float32
tensor [P, M, S] exists; the formulas are those of linear_chunk.py. On several GPU blocks the order of the sums is not fixed, so that
gradients may differ in their last bits from run to run.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from di4c.algorithm.affine import Affine, as_given, widened
from di4c.algorithm.linear_chunk import ChunkQuery
from di4c.algorithm.row_plan import NAMES, Plan, by_query, no_rows
from di4c.contracts import LOG_ZERO, Prediction

MOST_COMPONENTS = 128
"""A tile holds all components of a row."""

SPLITS = 8
"""Programs that share a row's states in the forward pass."""


def fused_applies(prediction: Prediction, fused: bool | None) -> bool:
    """Whether the kernels are used. fused: True and False decide; None uses them on CUDA where Triton is installed.

    Never for float64, more than one excluded state, or more than MOST_COMPONENTS components.
    """
    dtype = prediction.features.dtype
    possible = (
        dtype != torch.float64 and len(prediction.parameterisation.excluded) <= 1 and prediction.components <= MOST_COMPONENTS
    )
    return possible and (fused if fused is not None else prediction.features.is_cuda and triton_is_there())


@cache
def triton_is_there() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


class FusedSums(torch.autograd.Function):
    """(features [E, M, F, H], W, b) → the queries' values, flattened in the order of queries and NAMES."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, bias: Tensor | None, num_states: int, plan: Plan) -> tuple[Tensor, ...]:
        affine = Affine(weight, bias, num_states)
        parts, ctx.kept = [], []
        with as_given(features):
            for chunk in plan.chunks():
                tiles = Tiles.of(features, chunk, affine, plan)
                queries = plan.chunk_queries(chunk, affine)
                normaliser = tiles.normalisers()
                values, pulled = _values(tiles, normaliser, queries)
                ctx.kept.append((normaliser, pulled))
                parts.append([value[name] for value in values for name in NAMES if name in value])
        ctx.save_for_backward(features, weight, bias)
        ctx.num_states, ctx.plan = num_states, plan
        return tuple(torch.cat(column) for column in zip(*parts, strict=True)) if parts else no_rows(plan)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias = ctx.saved_tensors
        affine, plan = Affine(weight, bias, ctx.num_states), ctx.plan
        wanted = ctx.needs_input_grad[:3]
        of_weight, of_bias = (
            torch.zeros_like(x, dtype=torch.float32) if x is not None and need else None
            for x, need in ((weight, wanted[1]), (bias, wanted[2]))
        )
        of_features = torch.zeros_like(features) if wanted[0] else None
        with as_given(features):
            for chunk, kept in zip(plan.chunks(), ctx.kept, strict=True):
                tiles = Tiles.of(features, chunk, affine, plan)
                given = by_query(plan, [gradient[chunk] for gradient in gradients])
                of_h = torch.zeros_like(tiles.h, dtype=torch.float32) if wanted[0] else None
                _add_gradients(tiles, kept, plan.chunk_queries(chunk, affine), given, (of_h, of_weight, of_bias))
                if of_h is not None:
                    of_features[plan.rows.example[chunk], :, plan.rows.column[chunk]] = of_h.to(features.dtype)
        narrow = [None if g is None else g.to(x.dtype) for g, x in ((of_weight, weight), (of_bias, bias))]
        return of_features, *narrow, None, None


@dataclass(frozen=True)
class Tiles:
    """A chunk of P rows as the kernels see it: h [P, M, H], positions [P], the weights, and what a tile measures."""

    h: Tensor
    affine: Affine
    position: Tensor
    log_weights: Tensor
    excluded: int

    @classmethod
    def of(cls, features: Tensor, chunk: slice, affine: Affine, plan: Plan) -> "Tiles":
        rows = plan.rows
        h = features[rows.example[chunk], :, rows.column[chunk]].contiguous()
        weight = affine.weight if affine.weight.is_contiguous() else affine.weight.contiguous()
        if not h.is_cuda and h.dtype == torch.bfloat16:  # Triton's interpreter multiplies its bits as integers
            h, weight = h.float(), weight.float()
        whole = Affine(weight, affine.bias, affine.num_states)
        return cls(h, whole, rows.position[chunk].contiguous(), plan.log_weights.float(), (*plan.excluded, -1)[0])

    def normalisers(self) -> Tensor:
        """log Σ_s exp z_m(s): [P, M]."""
        kernels, (rows, components, _) = _kernels(), self.h.shape
        out = self.h.new_empty(self._splits, rows, components, dtype=torch.float32)
        kernels.normalisers[self._blocks, self._splits](*self._readout, out, *self._sizes, *self._per_split, **self._constants)
        return out.logsumexp(0)

    def mean_sums(self, normaliser: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """(Σ_s q(s) log p̄(s) [J, P], Σ_s q(s) resp_m(s) [J, P, M]) for marginals q [J, P, S]."""
        kernels, (rows, components, _) = _kernels(), self.h.shape
        cross = normaliser.new_zeros(self._splits, len(q), rows)
        pulled = normaliser.new_zeros(self._splits, len(q), rows, components)
        kernels.mean_sums[self._blocks, self._splits](
            *self._readout, normaliser, self.log_weights, q, cross, pulled, *self._sizes, len(q), *self._per_split, **self._constants
        )
        return cross.sum(0), pulled.sum(0)

    def add_gradients(self, normaliser: Tensor, sums: Tensor, pull: Tensor | None, totals: tuple[Tensor | None, ...]) -> None:
        """Adds to totals (of h, W, b; None: not wanted) what the logits' gradient −pull·resp_m − p_m·sums_m gives."""
        kernels, nothing = _kernels(), normaliser
        of_h, of_weight, of_bias = (nothing if total is None else total for total in totals)
        kernels.gradients[self._blocks, -(-self.affine.num_states // self._block_states)](
            *self._readout, normaliser, self.log_weights, sums.contiguous(), nothing if pull is None else pull, of_h, of_weight, of_bias,
            *self._sizes, self._bias_stride,
            HAS_PULL=pull is not None, DH=totals[0] is not None, DW=totals[1] is not None, DB=totals[2] is not None, **self._constants,
        )  # fmt: skip

    @property
    def _readout(self) -> tuple[Tensor, ...]:
        bias = self.affine.bias
        return self.h, self.affine.weight, self.h if bias is None else bias.contiguous(), self.position

    @property
    def _sizes(self) -> tuple[int, ...]:
        rows, components, width = self.h.shape
        return rows, components, self.affine.num_states, width

    @property
    def _bias_stride(self) -> int:
        bias = self.affine.bias
        return bias.shape[-1] if bias is not None and bias.dim() == 2 else 0

    @property
    def _block_states(self) -> int:
        return 64 if self.h.is_cuda else 16

    @property
    def _padded_components(self) -> int:
        return 1 << (self.h.shape[1] - 1).bit_length()

    @property
    def _block_rows(self) -> int:
        return max(1, (64 if self.h.is_cuda else 16) // self._padded_components)

    @property
    def _blocks(self) -> int:
        return -(-self.h.shape[0] // self._block_rows)

    @property
    def _splits(self) -> int:
        return min(SPLITS, -(-self.affine.num_states // self._block_states))

    @property
    def _per_split(self) -> tuple[int, int]:
        return self._bias_stride, -(-self.affine.num_states // (self._splits * self._block_states))

    @property
    def _constants(self) -> dict:
        bias = self.affine.bias
        tf32 = self.h.is_cuda and torch.backends.cuda.matmul.allow_tf32
        return {
            "BIAS": 0 if bias is None else bias.dim(), "EXCLUDED": self.excluded, "LOG_ZERO": LOG_ZERO,
            "BP": self._block_rows, "MP": self._padded_components, "BS": self._block_states, "BH": 32 if self.h.is_cuda else 16,
            "PRECISION": "tf32" if tf32 else "ieee",
        }  # fmt: skip


def _values(tiles: Tiles, normaliser: Tensor, queries: list[ChunkQuery]) -> tuple[list[dict[str, Tensor]], Tensor | None]:
    """As linear_chunk.chunk_values; and Σ_s q(s) resp_m(s) [J, P, M] of the queries that need "kl"."""
    weights, pulled = tiles.log_weights.exp(), None
    values: list[dict[str, Tensor]] = [{} for _ in queries]
    divergent = [k for k, query in enumerate(queries) if "kl" in query.needs]
    if divergent:
        cross, pulled = tiles.mean_sums(normaliser, torch.stack([queries[k].q.float() for k in divergent]))
    for k, query in enumerate(queries):
        if "chosen" in query.needs:
            values[k]["chosen"] = _chosen_logits(tiles, query.tokens) - normaliser[..., None]
        if query.q is not None:
            negative_entropy = torch.special.xlogy(query.q, query.q).sum(-1)
        if "kl" in query.needs:
            values[k]["kl"] = negative_entropy - cross[divergent.index(k)]
        if "componentwise_kl" in query.needs:
            mean = _mean_logits(tiles, query.q) - normaliser * query.q.sum(-1, keepdim=True)
            values[k]["componentwise_kl"] = negative_entropy - mean @ weights
    return values, pulled


def _chosen_logits(tiles: Tiles, tokens: Tensor) -> Tensor:
    """z_m(x_n): [P, M, N]."""
    weight, bias = tiles.affine.weight, tiles.affine.bias
    logits = torch.bmm(widened(tiles.h), widened(weight[tokens]).transpose(1, 2))
    if bias is not None:
        logits += (bias[tokens] if bias.dim() == 1 else bias[tiles.position[:, None], tokens])[:, None]
    return logits + LOG_ZERO * (tokens == tiles.excluded)[:, None]


def _mean_logits(tiles: Tiles, q: Tensor) -> Tensor:
    """Σ_s q(s) z_m(s): [P, M]."""
    states, (weight, bias) = tiles.affine.num_states, (tiles.affine.weight, tiles.affine.bias)
    mean = torch.bmm(widened(tiles.h), (q @ widened(weight[:states]))[..., None]).squeeze(-1)
    if bias is not None:
        each = bias[:states] if bias.dim() == 1 else bias[tiles.position, :states]
        mean += (q * widened(each)).sum(-1, keepdim=True)
    return mean if tiles.excluded < 0 else mean + LOG_ZERO * q[:, tiles.excluded, None]


def _add_gradients(
    tiles: Tiles, kept: tuple[Tensor, Tensor | None], queries: list[ChunkQuery], given: list[dict[str, Tensor]],
    totals: tuple[Tensor | None, ...],
) -> None:
    """Adds the chunk's part to the gradients of (h, W, b), those that are wanted."""
    (normaliser, pulled), weights = kept, tiles.log_weights.exp()
    sums, pull, push = torch.zeros_like(normaliser), None, None
    for query, gradient in zip(queries, given, strict=True):
        if "chosen" in gradient:
            sums += gradient["chosen"].sum(-1)
            _add_chosen(tiles, query.tokens, gradient["chosen"], totals)
        if "componentwise_kl" in gradient:
            part = query.q * gradient["componentwise_kl"][:, None]
            push = part if push is None else push + part
    divergent = [(query.q, gradient["kl"]) for query, gradient in zip(queries, given, strict=True) if "kl" in gradient]
    for (q, gradient), of_query in zip(divergent, [] if pulled is None else pulled, strict=True):
        sums -= gradient[:, None] * of_query
        pull = q * gradient[:, None] if pull is None else pull + q * gradient[:, None]
    if push is not None:
        sums -= weights * push.sum(-1, keepdim=True)
        _add_pushed(tiles, push, weights, totals)
    tiles.add_gradients(normaliser, sums, pull, totals)


def _add_chosen(tiles: Tiles, tokens: Tensor, gradient: Tensor, totals: tuple[Tensor | None, ...]) -> None:
    """The logits' gradient g[m, n] at the chosen states."""
    of_h, of_weight, of_bias = totals
    if of_h is not None:
        of_h.baddbmm_(gradient, widened(tiles.affine.weight[tokens]))
    if of_weight is not None:
        of_weight.index_add_(0, tokens.flatten(), torch.bmm(gradient.transpose(1, 2), widened(tiles.h)).flatten(0, 1))
    if of_bias is not None:
        at = (tokens,) if of_bias.dim() == 1 else (tiles.position[:, None].expand_as(tokens), tokens)
        of_bias.index_put_(at, gradient.sum(1), accumulate=True)


def _add_pushed(tiles: Tiles, push: Tensor, weights: Tensor, totals: tuple[Tensor | None, ...]) -> None:
    """The logits' gradient −w_m·push(s)."""
    of_h, of_weight, of_bias = totals
    states = tiles.affine.num_states
    if of_h is not None:
        of_h.sub_(weights[:, None] * (push @ widened(tiles.affine.weight[:states]))[:, None])
    if of_weight is not None:
        of_weight[:states].addmm_(push.T, torch.einsum("m,pmh->ph", weights, widened(tiles.h)), alpha=-1)
    if of_bias is not None and of_bias.dim() == 1:
        of_bias[:states] -= push.sum(0) * weights.sum()
    elif of_bias is not None:
        of_bias[:, :states].index_add_(0, tiles.position, push * weights.sum(), alpha=-1)


def _kernels():
    """The kernels' module; Triton is imported here."""
    from di4c.algorithm import fused_kernels

    return fused_kernels
