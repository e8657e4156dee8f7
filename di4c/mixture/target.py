"""The target of a loss: a sample of each of its components, and its λ-averaged marginals q̄, read in one pass."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from di4c.contracts import Draws, Prediction
from di4c.eager import run_eagerly
from di4c.kernels.backend import chunk_budget
from di4c.kernels.rows import Lines, Logits
from di4c.mixture.affine import Affine, as_given, is_affine, within_output_head
from di4c.mixture.buffers import Buffers
from di4c.mixture.marginals import Marginals, cut, draw_from, read_lines
from di4c.mixture.rows import Rows, rows_at_a_time, sum_by_example, uncertain_rows

KEPT_CHUNKS = 3
"""The marginals are kept for the loss if they take at most so many chunks' bytes; the pass that uses them works in what is left."""


@dataclass(frozen=True)
class TargetDraw:
    """samples [B, N, D], one of each of the target's N components; its marginals; joint [B, N, N] or None,
    Σ_d log p^d(x_n^d | x_u; λ_m) of sample n (first) under component m."""

    samples: Tensor
    marginals: Marginals
    joint: Tensor | None = None


@torch.no_grad()
def draw(target: Prediction, draws: Draws, *, chunk_bytes: int | None = None) -> Tensor:
    """One x_0 from each component, x_n ~ ∏_d p^d(· | x_u; λ_n): [B, N, D] int64, N the number of components.

    Positions without uncertainty keep their token.
    """
    return draw_target(target, draws, chunk_bytes=chunk_bytes, keep_bytes=0).samples


@torch.no_grad()
def draw_target(
    target: Prediction,
    draws: Draws,
    *,
    chunk_bytes: int | None = None,
    keep_bytes: int,
    copies: int = 1,
    copy_weights: Tensor | None = None,
    score: bool = False,
) -> TargetDraw:
    """A sample of every component, the marginals (kept if they take at most `keep_bytes`) and, with `score`, the joint.

    With copies = N > 1 the target is [B·N] examples of one component (see Marginals), and so are `draws`.
    chunk_bytes: None is the budget of the device.
    """
    chunk_bytes = chunk_bytes or chunk_budget(target.x_t.device)
    assert copies == 1 or (target.shape[1] == 1 and not score), "copies have one component each, and no joint"
    number = Marginals(target, copies=copies).uncertain()
    own = (
        demodulated(target, number if copies == 1 else uncertain_rows(target), chunk_bytes)
        if target.modulation
        else target
    )
    marginals = Marginals(own, copies=copies, copy_weights=copy_weights)
    stacked = marginals.stacked()
    size, components, positions = stacked.shape
    x = target.x_t.unflatten(0, (size, copies)).repeat_interleave(components // copies, 1).clone()  # [B, N, D]
    uniform = draws.uniform(components // copies, positions).view(size, components, positions)
    lines = marginals.lines(number) if copies > 1 else Lines(marginals.weights)
    lines = replace(lines, uniform=uniform[number // positions, :, number % positions])
    table = _empty_table(stacked, number, keep_bytes)
    joint = torch.zeros(size, components, components, dtype=torch.float64, device=x.device) if score else None

    def take(chunk: slice, drawn: Tensor, scores: Tensor | None) -> None:
        example, position = number[chunk] // positions, number[chunk] % positions
        x[example, :, position] = drawn
        if joint is not None:
            joint.add_(sum_by_example(scores.transpose(1, 2), number[chunk], positions, size, chunk_bytes // 2))

    rows = _TargetRows(marginals, stacked, number, lines, table, chunk_bytes, score)
    (rows.read_affine if is_affine(stacked) else rows.read_log_probs)(take)
    return TargetDraw(x, marginals if table is None else _with_table(marginals, table, number), joint)


Take = Callable[[slice, Tensor, Tensor | None], None]


@dataclass(frozen=True)
class _TargetRows:
    """The rows `number` [R] of a target that are uncertain, and what is read of them; table [R, S]: their marginals, to be filled."""

    marginals: Marginals
    stacked: Prediction
    number: Tensor
    lines: Lines
    table: Tensor | None
    chunk_bytes: int
    score: bool

    @run_eagerly
    def read_affine(self, take: Take) -> None:
        """take(chunk, drawn [P, N], scores [P, M, N]) for every chunk of the rows, all within one call of the output head."""
        rows = Rows.at(self.stacked, self.number, self.chunk_bytes)
        at_a_time = rows_at_a_time(self.stacked, self.chunk_bytes)
        components = self.stacked.components

        def read(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
            with as_given(features):
                buffers = Buffers.empty(min(at_a_time, len(rows)), components, affine.num_states, features)
                place = replace(rows, features=features)
                for chunk in rows.chunks(at_a_time):
                    here = buffers.view(len(self.number[chunk]), components)
                    told = {"mean": self._marginals_of(chunk), "score": self.score}
                    take(chunk, *read_lines(self.stacked, place, chunk, affine, self.lines, here, **told))
            return ()

        within_output_head(self.stacked, rows.features, read)

    def read_log_probs(self, take: Take) -> None:
        """The same for any other output head, whose number of calls depends on the shapes alone (ZeRO-3)."""
        at_a_time = max(1, rows_at_a_time(self.stacked, self.chunk_bytes))
        start = 0
        for some in self.number.tensor_split(max(1, -(-self.stacked.x_t.numel() // at_a_time))):
            chunk = slice(start, start := start + len(some))
            log_p = self.marginals.prediction.log_probs(self.marginals.rows_of_copies(some))
            log_p = log_p.reshape(len(some), self.stacked.shape[1], self.stacked.num_states).contiguous()
            with as_given(log_p):
                scratch = torch.empty_like(log_p)
                lines = cut(self.lines, chunk)
                take(chunk, *draw_from(Logits(log_p), lines, scratch, self._marginals_of(chunk), self.score))

    def _marginals_of(self, chunk: slice) -> Tensor | None:
        return None if self.table is None else self.table[chunk]


def _empty_table(stacked: Prediction, number: Tensor, keep_bytes: int) -> Tensor | None:
    """Room for the marginals of the rows: [R, S], or None if they take more than `keep_bytes`."""
    if len(number) * stacked.num_states * stacked.accumulation_dtype.itemsize > keep_bytes:
        return None
    return torch.zeros(max(len(number), 1), stacked.num_states, dtype=stacked.accumulation_dtype, device=number.device)


def _with_table(marginals: Marginals, table: Tensor, number: Tensor) -> Marginals:
    """The marginals with the table of these rows."""
    index = torch.full((marginals.prediction.x_t.numel() // marginals.copies,), -1, device=number.device)
    index[number] = torch.arange(len(number), device=number.device)
    return replace(marginals, table=table, index=index)


def demodulated(prediction: Prediction, number: Tensor, chunk_bytes: int) -> Prediction:
    """The prediction with its modulation applied to the features of the rows of these numbers: [B·M, D, H].

    So that reading it calls no module but the output head.
    """
    rows = Rows.at(prediction, number, chunk_bytes)
    size, components, positions = len(prediction.x_t), prediction.components, prediction.x_t.shape[1]
    width = prediction.features.shape[-1]
    features = rows.features.new_zeros(size, components, positions, width)
    features[rows.number // positions, :, rows.position] = rows.features[:, :, 0]
    return replace(prediction, features=features.flatten(0, 1), modulation=None)
