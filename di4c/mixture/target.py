"""The target of a loss: a sample of each of its components, and its λ-averaged marginals q̄, read in one pass."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from di4c.contracts import Draws, Prediction
from di4c.eager import run_eagerly
from di4c.kernels.backend import chunk_budget
from di4c.kernels.rows import Lines, Logits
from di4c.mixture.affine import Affine, as_given, within_output_head
from di4c.mixture.buffers import Buffers
from di4c.mixture.marginals import Marginals, cut, draw_from, read_lines
from di4c.mixture.rows import Rows, sum_by_example

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
    marginals = Marginals(target, copies=copies, copy_weights=copy_weights)
    number = marginals.uncertain()
    if target.modulation:
        own = demodulated(target, number if copies == 1 else target.uncertain_rows(), chunk_bytes)
        marginals = replace(marginals, prediction=own)
    stacked = marginals.stacked()
    size, components, positions = stacked.shape
    x = target.x_t.unflatten(0, (size, copies)).repeat_interleave(components // copies, 1).clone()  # [B, N, D]
    uniform = draws.uniform(components // copies, positions).view(size, components, positions)
    lines = marginals.lines(number) if copies > 1 else Lines(marginals.weights)
    lines = replace(lines, uniform=uniform[number // positions, :, number % positions])
    table = _empty_table(stacked, number, keep_bytes)
    joint = torch.zeros(size, components, components, dtype=torch.float64, device=x.device) if score else None
    rows = _TargetRows(marginals, stacked, number, lines, chunk_bytes, x, joint, table)
    (rows.read_affine if stacked.is_affine else rows.read_log_probs)()
    return TargetDraw(x, marginals if table is None else _with_table(marginals, table, number), joint)


@dataclass(frozen=True)
class _TargetRows:
    """The rows `number` [R] of a target that are uncertain, and what is filled as they are read: x [B, N, D], joint, if it is asked
    for, and table [R, S], their marginals, if they are kept."""

    marginals: Marginals
    stacked: Prediction
    number: Tensor
    lines: Lines
    chunk_bytes: int
    x: Tensor
    joint: Tensor | None
    table: Tensor | None

    @run_eagerly
    def read_affine(self) -> None:
        """All within one call of the output head."""
        rows = Rows.at(self.stacked, self.number, self.chunk_bytes)
        at_a_time = self.stacked.rows_at_a_time(self.chunk_bytes)

        def read(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
            with as_given(features):
                most = min(at_a_time, len(rows))
                buffers = Buffers.empty(most, self.stacked.components, affine.num_states, features)
                place = replace(rows, features=features)
                for chunk in rows.chunks(at_a_time):
                    told = self._asked(chunk)
                    self._take(chunk, *read_lines(self.stacked, place, chunk, affine, self.lines, buffers, **told))
            return ()

        within_output_head(self.stacked, rows.features, read)

    def read_log_probs(self) -> None:
        """The same for any other output head, whose number of calls depends on the shapes alone (ZeRO-3)."""
        start = 0
        for some in self.number.tensor_split(self.stacked.number_of_chunks(self.chunk_bytes)):
            chunk = slice(start, start := start + len(some))
            log_p = self.marginals.prediction.log_probs(self.marginals.rows_of_copies(some))
            log_p = log_p.reshape(len(some), self.stacked.shape[1], self.stacked.num_states).contiguous()
            with as_given(log_p):
                scratch = torch.empty_like(log_p)
                self._take(chunk, *draw_from(Logits(log_p), cut(self.lines, chunk), scratch, **self._asked(chunk)))

    def _asked(self, chunk: slice) -> dict:
        """What is asked of a chunk beside its draws."""
        return {"mean": None if self.table is None else self.table[chunk], "score": self.joint is not None}

    def _take(self, chunk: slice, drawn: Tensor, scores: Tensor | None) -> None:
        """drawn [P, N], scores [P, M, N]."""
        number, (size, _, positions) = self.number[chunk], self.x.shape
        self.x[number // positions, :, number % positions] = drawn
        if self.joint is not None:
            of_rows = scores.transpose(1, 2)
            self.joint.add_(sum_by_example(of_rows, number, positions, size, self.chunk_bytes // 2))


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
