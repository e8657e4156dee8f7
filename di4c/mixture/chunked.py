"""Row values of a prediction with an affine output head, chunk by chunk, with gradients written by hand.

A chunk: logits by the library's product → row functions → the numbers that the losses need; backwards the logits once more →
their gradient → library products with weights and features. No autograd graph, and nothing of size S outlives its chunk.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from di4c.contracts import Prediction
from di4c.eager import run_eagerly
from di4c.kernels.backend import kernels_for
from di4c.kernels.rows import Against, Logits, RowGradients, RowValues
from di4c.mixture.affine import Affine, as_given, autocast_dtype, within_output_head
from di4c.mixture.buffers import Buffers
from di4c.mixture.gradients import Gradients
from di4c.mixture.marginals import Marginals
from di4c.mixture.rows import Chunk, Pairs, Rows, rows_at_a_time

PASS_CHUNKS = 4
"""What a pass over the rows may hold beside features, weights and their gradients, in chunks."""

Heads = dict[int, Affine]
"""Output heads by id, with their weights in hand."""


@dataclass(frozen=True)
class Scored:
    """What a mixture with these log-weights [M] is scored against: samples [B, ΣN, D] or None, J targets, and which divergences.

    pairs: which rows the samples of an example are scored at, where examples share inputs; None: each at its own.
    """

    log_weights: Tensor
    samples: Tensor | None
    targets: list[Marginals]
    kl: bool
    componentwise: bool
    pairs: Pairs | None

    def tokens(self, number: Tensor) -> Tensor | None:
        """The samples' tokens at b·D + d: [P, ΣN]."""
        if self.samples is None:
            return None
        positions = self.samples.shape[-1]
        return self.samples[number // positions, :, number % positions]


@dataclass(frozen=True)
class RowsAgainst(Scored):
    """The R rows that a pass goes over, and what they are scored against: `Against` before it is cut into chunks.

    autocast: its dtype where the pass was called, None where it is off. Targets are read in it, in the backward pass as well.
    """

    rows: Rows
    excluded: tuple[int, ...]
    at_a_time: int
    head: torch.nn.Module
    autocast: torch.dtype | None

    def chunks(self) -> list["Chunk"]:
        """As many as the data ask for, since all of them run in one call of the output head."""
        rows = list(self.rows.chunks(self.at_a_time))
        if self.pairs is None:
            return [Chunk(some, some) for some in rows]
        return list(map(Chunk, rows, self.pairs.cut([0, *(some.stop for some in rows)])))

    def chunk(self, chunk: "Chunk", heads: Heads, buffers: Buffers) -> Against:
        """What a chunk is scored against; the buffers are free to work in."""
        number, pairs = self.rows.number[chunk.rows], self.pairs
        with torch.autocast(number.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            q = [self._marginals(target, number, heads, buffers) for target in self.targets]
        if pairs is None:
            return Against(self.log_weights, self.tokens(number), q, self.kl, self.componentwise)
        row, tokens = pairs.row[chunk.pairs] - chunk.rows.start, self.tokens(pairs.number[chunk.pairs])
        return Against(self.log_weights, tokens, q, self.kl, self.componentwise, row)

    def logits(self, chunk: slice, affine: Affine, buffers: Buffers) -> tuple[Tensor, Logits]:
        """(h [P, M, H], its logits) of a chunk."""
        rows = self.rows
        h = rows.features[rows.example[chunk], :, rows.column[chunk]]
        return h, affine.logits(h, rows.position[chunk], self.excluded, buffers.logits)

    def buffers(self, affine: Affine) -> Buffers:
        """For a chunk."""
        rows = min(self.at_a_time, len(self.rows))
        return Buffers.empty(rows, len(self.log_weights), affine.num_states, affine.weight)

    def with_heads(self, affine: Affine, read: Callable[[Heads], None]) -> None:
        """read(heads) from inside one call of each target's output head: under ZeRO-3 its weight is gathered once a pass."""
        others = {
            id(target.prediction.output_head): target.prediction
            for target in self.targets
            if target.table is None and target.readable
        }
        others.pop(id(self.head), None)
        self._open(list(others.values()), {id(self.head): affine}, read)

    def _open(self, predictions: list[Prediction], heads: Heads, read: Callable[[Heads], None]) -> None:
        if not predictions:
            return read(heads)

        def reduction(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
            self._open(predictions[1:], heads | {id(predictions[0].output_head): affine}, read)
            return ()

        kind = self.rows.number.device.type
        with torch.autocast(kind, dtype=self.autocast, enabled=self.autocast is not None):
            within_output_head(predictions[0], predictions[0].features[:0], reduction)

    def _marginals(self, target: Marginals, number: Tensor, heads: Heads, buffers: Buffers) -> Tensor:
        with as_given(number):
            return target.probs(number, heads.get(id(target.prediction.output_head)), buffers).to(self.log_weights)


@run_eagerly
def row_values_of(
    prediction: Prediction, rows: Rows, scored: Scored, chunk_bytes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(chosen [R, M, ΣN], kl [J, R], componentwise [J, R]) of `rows`; float32 at least; 0 where a divergence is not wanted.

    With pairs, chosen is [Q, M, ΣN].
    """
    budget = (
        _bytes_for_logits(scored.targets, chunk_bytes) if kernels_for(prediction.features).BUFFERED else chunk_bytes
    )
    log_weights = scored.log_weights.detach().to(prediction.accumulation_dtype)
    against = RowsAgainst(
        **(vars(scored) | {"log_weights": log_weights}), rows=rows, excluded=prediction.parameterisation.excluded,
        at_a_time=_at_a_time(prediction, scored, budget), head=prediction.output_head, autocast=autocast_dtype(rows.features),
    )  # fmt: skip

    def read(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
        return _RowValues.apply(features, affine.weight, affine.bias, affine.num_states, against)

    return within_output_head(prediction, rows.features, read)


class _RowValues(torch.autograd.Function):
    """(features [E, M, F, H], W, b) → chosen [R, M, N], kl [J, R], componentwise [J, R]."""

    @staticmethod
    def forward(
        ctx, features: Tensor, weight: Tensor, bias: Tensor | None, num_states: int, against: RowsAgainst
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(features, weight, bias)
        ctx.num_states, ctx.against, ctx.kept = num_states, against, []
        affine, against = Affine(weight, bias, num_states), _with_features(against, features)
        log_weights, targets, rows = against.log_weights, len(against.targets), len(against.rows)
        samples = 0 if against.samples is None else against.samples.shape[1]
        lines = rows if against.pairs is None else len(against.pairs.row)
        chosen = log_weights.new_zeros(lines, len(log_weights), samples)
        kl, componentwise = log_weights.new_zeros(2, targets, rows)

        def read(heads: Heads) -> None:
            buffers = against.buffers(affine)
            for chunk in against.chunks():
                found = _values(against, chunk, affine, heads, buffers)
                ctx.kept.append(found.kept)
                if samples:
                    chosen[chunk.pairs] = found.chosen
                if against.kl:
                    kl[:, chunk.rows] = found.kl
                if against.componentwise:
                    componentwise[:, chunk.rows] = found.componentwise

        with as_given(features):
            against.with_heads(affine, read)
        return chosen, kl, componentwise

    @staticmethod
    @once_differentiable
    def backward(ctx, chosen: Tensor, kl: Tensor, componentwise: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias = ctx.saved_tensors
        affine, against = Affine(weight, bias, ctx.num_states), _with_features(ctx.against, features)
        total = Gradients.zeros(features, affine, ctx.needs_input_grad[:3])

        def read(heads: Heads) -> None:
            buffers = against.buffers(affine)
            for chunk, kept in zip(against.chunks(), ctx.kept, strict=True):
                given = RowGradients(
                    chosen[chunk.pairs] if against.samples is not None else None, kl[:, chunk.rows] if against.kl else None,
                    componentwise[:, chunk.rows] if against.componentwise else None,
                )  # fmt: skip
                total.add(against.rows, chunk.rows, *_gradient(against, chunk, affine, heads, buffers, kept, given))

        with as_given(features):
            against.with_heads(affine, read)
        return *total.result(), None, None


def _values(against: RowsAgainst, chunk: Chunk, affine: Affine, heads: Heads, buffers: Buffers) -> RowValues:
    """The row values of a chunk. Its logits end with this call: on a GPU two of them would double the peak."""
    some = against.chunk(chunk, heads, buffers)
    here = buffers.view(len(against.rows.number[chunk.rows]), len(against.log_weights))
    logits = against.logits(chunk.rows, affine, here)[1]
    return kernels_for(logits.z).row_values(logits, some, here.scratch)


def _gradient(
    against: RowsAgainst,
    chunk: Chunk,
    affine: Affine,
    heads: Heads,
    buffers: Buffers,
    kept: tuple[Tensor, ...],
    given: RowGradients,
) -> tuple[Tensor, Tensor]:
    """(h [P, M, H], the gradient with respect to its logits [P, M, S]) of a chunk."""
    some = against.chunk(chunk, heads, buffers)
    here = buffers.view(len(against.rows.number[chunk.rows]), len(against.log_weights))
    h, logits = against.logits(chunk.rows, affine, here)
    dtype = affine.weight.dtype
    return h.to(dtype), kernels_for(logits.z).row_gradient(logits, some, kept, given, here.scratch, dtype)


def _with_features(against: RowsAgainst, features: Tensor) -> RowsAgainst:
    """With the features as the output head's call hands them on."""
    return replace(against, rows=replace(against.rows, features=features))


def _at_a_time(prediction: Prediction, scored: Scored, chunk_bytes: int) -> int:
    """How many rows' logits fit the budget, and what is chosen of them; at least 1."""
    rows = rows_at_a_time(prediction, chunk_bytes)
    if scored.pairs is None or scored.samples is None:
        return rows
    chosen = (
        scored.pairs.widest * scored.samples.shape[1] * prediction.components * prediction.accumulation_dtype.itemsize
    )
    return max(1, min(rows, chunk_bytes // chosen))


def _bytes_for_logits(targets: list[Marginals], chunk_bytes: int) -> int:
    """Bytes that the logits of a chunk may take, so that a pass holds PASS_CHUNKS chunks' bytes however many rows it has.

    Two copies of the logits share what kept marginals leave; without any, reading a target again takes the other two.
    """
    kept = sum(target.kept_bytes for target in targets)
    return (PASS_CHUNKS * chunk_bytes - kept) // 2 if kept else chunk_bytes
