"""The λ-averaged marginals q̄ of a target, kept or read again, and how its distributions are read."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from di4c.contracts import Prediction
from di4c.kernels.backend import kernels_for
from di4c.kernels.rows import Against, Lines, Logits
from di4c.mixture.affine import Affine, as_given
from di4c.mixture.buffers import Buffers
from di4c.mixture.rows import Rows


@dataclass(frozen=True)
class Marginals:
    """q̄^d = Σ_n w_n p^d(· | x_u; λ_n) of a prediction at any rows, without gradient.

    table: [K, S], kept from the pass that drew the samples, with index [B·D] → its row, −1 where the position is certain of
    its token. Without a table the prediction is read out again whenever it is asked.
    copies: the prediction holds that many examples of one component for each example here (b major), an x_u of its own for
    each λ_n, and q̄ is their mean; copy_weights [copies], None for equal ones.
    """

    prediction: Prediction
    table: Tensor | None = None
    index: Tensor | None = None
    copies: int = 1
    copy_weights: Tensor | None = None

    @torch.no_grad()
    def probs(self, rows: Tensor, affine: Affine | None = None, buffers: Buffers | None = None) -> Tensor:
        """q̄ at rows b·D + d: [P, S]. `affine`: the output head's weights, if they are in hand; `buffers` are free to work in.

        They may be of the call of the head that we are inside of.
        """
        if self.table is not None:
            return self._kept(rows)
        if affine is None or not self.readable:
            return self._from_log_probs(rows, affine)
        stacked = self.stacked()
        dtype = torch.promote_types(affine.weight.dtype, torch.float32)
        if buffers is None or not buffers.of(dtype):
            buffers = Buffers.empty(len(rows), stacked.components, stacked.num_states, affine.weight)
        at_a_time = buffers.component_rows // stacked.components
        if at_a_time == 0:
            return self._from_log_probs(rows, affine)
        q = torch.empty(len(rows), stacked.num_states, dtype=dtype, device=rows.device)
        place, lines = Rows.at(stacked, rows, 0), self.lines(rows)
        for chunk in place.chunks(at_a_time):
            read_lines(stacked, place, chunk, affine, lines, buffers, mean=q[chunk])
        return q

    @property
    def readable(self) -> bool:
        """Whether the row functions read it from an affine output head's weights."""
        return self.prediction.is_affine and self.prediction.modulation is None

    @property
    def weights(self) -> Tensor:
        """Of the copies' components: [copies·N] float64, their sum 1."""
        prediction = self.prediction
        one = torch.ones(1, dtype=torch.float64, device=prediction.x_t.device)
        of_components = one if prediction.averaged else mixture_log_weights(prediction).exp()
        if self.copy_weights is None:
            return of_components.repeat(self.copies) / self.copies
        return (self.copy_weights.to(of_components)[:, None] * of_components).flatten()

    def stacked(self) -> Prediction:
        """The prediction with the copies of an example as its components. Nothing is moved: they lie so."""
        if self.copies == 1:
            return self.prediction
        x_t, components = self.prediction.x_t[:: self.copies], self.copies * self.prediction.components
        return replace(self.prediction, x_t=x_t, components=components, log_weights=None)

    def lines(self, rows: Tensor) -> Lines:
        """The distributions of the rows, and of which tokens they are certain."""
        of_copies = (x.unflatten(0, (-1, self.copies)) for x in (self.prediction.x_t, self.prediction.active()))
        tokens, active = (x.transpose(1, 2).flatten(0, 1)[rows] for x in of_copies)  # [P, copies]
        certain = torch.where(active, -1, tokens).repeat_interleave(self.prediction.components, 1)
        return Lines(self.weights, certain=certain)

    def uncertain(self) -> Tensor:
        """The rows that are not a one-hot: [R]. Copies may have fixed a position at different tokens."""
        if self.copies == 1:
            return self.prediction.uncertain_rows()
        active, tokens = (x.unflatten(0, (-1, self.copies)) for x in (self.prediction.active(), self.prediction.x_t))
        return (active.any(1) | (tokens != tokens[:, :1]).any(1)).flatten().nonzero().squeeze(-1)

    def _from_log_probs(self, rows: Tensor, affine: Affine | None) -> Tensor:
        """q̄ by the prediction's own output head, or the weights that stand in for it."""
        averaged = self.prediction.average()
        averaged = averaged if affine is None else replace(averaged, output_head=affine)
        p = averaged.log_probs(self.rows_of_copies(rows))[:, 0].exp().unflatten(0, (len(rows), self.copies))
        if self.copies == 1:
            return p[:, 0]
        weights = self.weights.unflatten(0, (self.copies, -1)).sum(1)
        with as_given(p):
            return torch.einsum("pns,n->ps", p, weights.to(p))

    def rows_of_copies(self, rows: Tensor) -> Tensor:
        """The prediction's rows (b·copies + n)·D + d for rows b·D + d: [P·copies]."""
        positions = self.prediction.x_t.shape[1]
        copy = torch.arange(self.copies, device=rows.device)
        return (((rows // positions * self.copies)[:, None] + copy) * positions + (rows % positions)[:, None]).flatten()

    def _kept(self, rows: Tensor) -> Tensor:
        where = self.index[rows]
        q = self.table[where.clamp_min(0)]
        certain = (where < 0)[:, None]
        states = torch.arange(q.shape[-1], device=q.device)
        tokens = self.prediction.x_t[:: self.copies].flatten()[rows]
        return torch.where(certain, (states == tokens[:, None]).to(q), q)


def read_lines(
    stacked: Prediction,
    rows: Rows,
    chunk: slice,
    affine: Affine,
    lines: Lines,
    buffers: Buffers,
    *,
    mean: Tensor | None,
    score: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """`row_draw` of a chunk of the rows, from their features; with `score` also the log-probabilities [P, M, N] of what was drawn."""
    here = buffers.view(len(rows.number[chunk]), stacked.components)
    logits = affine.logits(rows.read(chunk), rows.position[chunk], stacked.parameterisation.excluded, here.logits)
    return draw_from(logits, cut(lines, chunk), here.scratch, mean, score)


def draw_from(
    logits: Logits, lines: Lines, scratch: Tensor | None, mean: Tensor | None, score: bool
) -> tuple[Tensor | None, Tensor | None]:
    """(`row_draw` of the logits, the log-probabilities [P, M, N] of what was drawn if they are asked for)."""
    kernels = kernels_for(logits.z)
    own = mean if mean is None or mean.dtype == logits.z.dtype else mean.to(logits.z.dtype)
    drawn = kernels.row_draw(logits, lines, scratch, own)
    if own is not mean:
        mean.copy_(own)
    if not score:
        return drawn, None
    return drawn, kernels.row_values(logits, Against(lines.weights.to(logits.z).log(), drawn), scratch).chosen


def cut(lines: Lines, chunk: slice) -> Lines:
    """The lines of some rows."""
    return Lines(lines.weights, *(None if x is None else x[chunk] for x in (lines.uniform, lines.certain)))


def mixture_log_weights(prediction: Prediction) -> Tensor:
    """log w_m: [M] float64, equal weights unless the prediction carries its own."""
    if prediction.log_weights is not None:
        return prediction.log_weights.to(prediction.features.device)
    components = prediction.shape[1]
    return torch.full((components,), -math.log(components), dtype=torch.float64, device=prediction.features.device)
