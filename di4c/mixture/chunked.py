"""Row values of a prediction with an affine output head, chunk by chunk, with gradients written by hand.

A chunk: logits by the library's product → row functions → the numbers that the losses need; backwards the logits once more →
their gradient → library products with weights and features. No autograd graph, and nothing of size S outlives its chunk.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from di4c.contracts import Prediction
from di4c.eager import run_eagerly
from di4c.kernels.backend import kernels_for
from di4c.kernels.products import autocast_dtype
from di4c.kernels.rows import Against, Logits, RowValues
from di4c.mixture.affine import Affine, as_given, within_output_head
from di4c.mixture.buffers import Buffers
from di4c.mixture.equal_inputs import Chunk, Pairs
from di4c.mixture.gradients import Gradients
from di4c.mixture.marginals import Marginals
from di4c.mixture.rows import Rows

PASS_CHUNKS = 4
"""What a pass over the rows may hold beside features, weights and their gradients, in chunks."""


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

    def chunks(self, rows: Iterable[slice]) -> list[Chunk]:
        """Chunks of these rows."""
        rows = list(rows)
        if self.pairs is None:
            return [Chunk(some, some) for some in rows]
        return list(map(Chunk, rows, self.pairs.cut([0, *(some.stop for some in rows)])))

    def lines(self, number: Tensor, chunk: Chunk) -> tuple[Tensor | None, Tensor | None]:
        """(tokens [P, ΣN], row) of a chunk of the rows b·D + d, `number` [R], as in Against."""
        row = None if self.pairs is None else self.pairs.row[chunk.pairs] - chunk.rows.start
        if self.samples is None:
            return None, row
        number, positions = number if self.pairs is None else self.pairs.number, self.samples.shape[-1]
        number = number[chunk.pairs]
        return self.samples[number // positions, :, number % positions], row


@dataclass(frozen=True)
class RowsAgainst(Scored):
    """The R rows that a pass goes over, and what they are scored against: `Against` before it is cut into chunks.

    autocast: its dtype where the pass was called, None where it is off. Targets are read in it, in the backward pass as well.
    keep: whether their marginals at the rows are kept for the backward pass.
    """

    rows: Rows
    excluded: tuple[int, ...]
    at_a_time: int
    head: torch.nn.Module
    autocast: torch.dtype | None
    keep: bool

    def as_called(self) -> torch.autocast:
        """A context with autocast as it was where the pass was called."""
        return torch.autocast(self.rows.number.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def read(self, features: Tensor, affine: Affine, take: Callable[["Pass"], None]) -> None:
        """take(pass) from inside one call of each target's output head: under ZeRO-3 its weight is gathered once a pass.

        features: the rows' as the call of `affine`'s head hands them on.
        """
        rows = replace(self.rows, features=features)
        largest = min(self.at_a_time, len(rows)), len(self.log_weights), affine.num_states
        others = {
            id(target.prediction.output_head): target.prediction
            for target in self.targets
            if target.table is None and target.readable
        }
        others.pop(id(self.head), None)

        def start(heads: dict[int, Affine]) -> None:
            take(Pass(self, rows, affine, heads, Buffers.empty(*largest, affine.weight)))

        with as_given(features):
            self._open(list(others.values()), {id(self.head): affine}, start)

    def _open(
        self, predictions: list[Prediction], heads: dict[int, Affine], start: Callable[[dict[int, Affine]], None]
    ) -> None:
        """start(all heads) from inside one call of the output head of each of the predictions."""
        if not predictions:
            return start(heads)

        def reduction(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
            self._open(predictions[1:], heads | {id(predictions[0].output_head): affine}, start)
            return ()

        with self.as_called():
            within_output_head(predictions[0], predictions[0].features[:0], reduction)


@dataclass(frozen=True)
class Pass:
    """A pass over the rows, with the output heads' weights in hand, by id of the head, and the buffers that its chunks share."""

    against: RowsAgainst
    rows: Rows
    affine: Affine
    heads: dict[int, Affine]
    buffers: Buffers

    def chunks(self) -> list[Chunk]:
        """As many as the data ask for, since all of them run in one call of the output head."""
        return self.against.chunks(self.rows.chunks(self.against.at_a_time))

    def marginals(self, chunk: Chunk) -> list[Tensor]:
        """Of each target at the rows of a chunk: [P, S]. They are read before the logits, in the buffers of both."""
        number = self.rows.number[chunk.rows]
        return [self._marginals(target, number) for target in self.against.targets]

    def values(self, chunk: Chunk, q: list[Tensor]) -> RowValues:
        """The row values of a chunk. Its logits end with this call: on a GPU two of them would double the peak."""
        some, _, logits, scratch = self._read(chunk, q)
        return kernels_for(logits.z).row_values(logits, some, scratch)

    def gradient(self, chunk: Chunk, q: list[Tensor], given: RowValues) -> tuple[Tensor, Tensor]:
        """(h [P, M, H], the gradient with respect to its logits [P, M, S]) of a chunk."""
        some, h, logits, scratch = self._read(chunk, q)
        dtype = self.affine.weight.dtype
        return h.to(dtype), kernels_for(logits.z).row_gradient(logits, some, given, scratch, dtype)

    def _read(self, chunk: Chunk, q: list[Tensor]) -> tuple[Against, Tensor, Logits, Tensor | None]:
        """(what a chunk is scored against, h [P, M, H], its logits, room as large as they)."""
        told, rows = self.against, self.rows
        number, (tokens, row) = rows.number[chunk.rows], told.lines(rows.number, chunk)
        here = self.buffers.view(len(number), len(told.log_weights))
        h = rows.read(chunk.rows)
        logits = self.affine.logits(h, rows.position[chunk.rows], told.excluded, here.logits)
        return Against(told.log_weights, tokens, q, told.kl, told.componentwise, row), h, logits, here.scratch

    def _marginals(self, target: Marginals, number: Tensor) -> Tensor:
        """q̄ at rows b·D + d: [P, S], by weights in hand, else by an output head that is called with autocast as the pass was."""
        head = self.heads.get(id(target.prediction.output_head))
        with self.against.as_called() if head is None else as_given(number):
            return target.probs(number, head, self.buffers).to(self.against.log_weights)


@run_eagerly
def row_values_of(
    prediction: Prediction, rows: Rows, scored: Scored, chunk_bytes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(chosen [R, M, ΣN], kl [J, R], componentwise [J, R]) of `rows`; float32 at least; 0 where a divergence is not wanted.

    With pairs, chosen is [Q, M, ΣN].
    """
    log_weights = scored.log_weights.detach().to(prediction.accumulation_dtype)
    against = RowsAgainst(
        **(vars(scored) | {"log_weights": log_weights}), rows=rows, excluded=prediction.parameterisation.excluded,
        at_a_time=_at_a_time(prediction, scored, chunk_bytes), head=prediction.output_head, autocast=autocast_dtype(rows.features),
        keep=_keeps_marginals(rows, scored, prediction, chunk_bytes),
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
        log_weights, targets, rows = against.log_weights, len(against.targets), len(against.rows)
        samples = 0 if against.samples is None else against.samples.shape[1]
        lines = rows if against.pairs is None else len(against.pairs.row)
        chosen = log_weights.new_zeros(lines, len(log_weights), samples)
        kl, componentwise = log_weights.new_zeros(2, targets, rows)

        def take(over: Pass) -> None:
            for chunk in over.chunks():
                q = over.marginals(chunk)
                found = over.values(chunk, q)
                ctx.kept.append((found.kept, q if against.keep else None))
                if samples:
                    chosen[chunk.pairs] = found.chosen
                if against.kl:
                    kl[:, chunk.rows] = found.kl
                if against.componentwise:
                    componentwise[:, chunk.rows] = found.componentwise

        against.read(features, Affine(weight, bias, num_states), take)
        return chosen, kl, componentwise

    @staticmethod
    @once_differentiable
    def backward(ctx, chosen: Tensor, kl: Tensor, componentwise: Tensor) -> tuple[Tensor | None, ...]:
        (features, weight, bias), against = ctx.saved_tensors, ctx.against
        affine = Affine(weight, bias, ctx.num_states)
        total = Gradients.zeros(features, affine, ctx.needs_input_grad[:3])

        def take(over: Pass) -> None:
            for chunk, (kept, q) in zip(over.chunks(), ctx.kept, strict=True):
                q = over.marginals(chunk) if q is None else q
                given = RowValues(
                    chosen[chunk.pairs] if against.samples is not None else None, kl[:, chunk.rows] if against.kl else None,
                    componentwise[:, chunk.rows] if against.componentwise else None, kept,
                )  # fmt: skip
                total.add(over.rows, chunk.rows, *over.gradient(chunk, q, given))

        against.read(features, affine, take)
        return *total.result(), None, None


def _keeps_marginals(rows: Rows, scored: Scored, prediction: Prediction, chunk_bytes: int) -> bool:
    """On a GPU, where they take at most half a chunk: reading a teacher again costs some dozens of launches a chunk."""
    size = len(scored.targets) * len(rows) * prediction.num_states * prediction.accumulation_dtype.itemsize
    return not kernels_for(rows.features).BUFFERED and size <= chunk_bytes // 2


def _at_a_time(prediction: Prediction, scored: Scored, chunk_bytes: int) -> int:
    """How many rows' logits, and what is chosen of them, fit the budget, at least 1: a pass holds PASS_CHUNKS chunks' bytes.

    Two copies of the logits share what kept marginals leave; without any, reading a target again takes the other two.
    """
    kept = sum(target.table.nbytes for target in scored.targets if target.table is not None)
    if kept and kernels_for(prediction.features).BUFFERED:
        chunk_bytes = (PASS_CHUNKS * chunk_bytes - kept) // 2
    rows = prediction.rows_at_a_time(chunk_bytes)
    if scored.pairs is None or scored.samples is None:
        return rows
    numbers = scored.pairs.widest * scored.samples.shape[1] * prediction.components
    return max(1, min(rows, chunk_bytes // (numbers * prediction.accumulation_dtype.itemsize)))
