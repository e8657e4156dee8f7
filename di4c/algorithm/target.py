"""The target of a loss: a sample of each of its components, and its λ-averaged marginals q̄, read in one pass."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from di4c.algorithm.affine import Affine, Rows, is_affine, lowered, rows_at_a_time, run_eagerly, within_readout
from di4c.contracts import CHUNK_BYTES, Draws, Prediction, categorical


@dataclass(frozen=True)
class Marginals:
    """q̄^d = Σ_n w_n p^d(· | x_u; λ_n) of a prediction at any rows, without gradient.

    table: [K, S], kept from the pass that drew the samples, with index [B·D] → its row, −1 where the position is certain of
    its token. Without a table the prediction is read out again whenever it is asked.
    """

    prediction: Prediction
    table: Tensor | None = None
    index: Tensor | None = None

    @torch.no_grad()
    def probs(self, rows: Tensor, readout: nn.Module | None = None, affine: Affine | None = None) -> Tensor:
        """q̄ at rows b·D + d: [P, S]. `affine` stands in for `readout`, whose call we may be inside of."""
        if self.table is not None:
            return self._kept(rows)
        prediction = self.prediction.average()
        if affine is not None and prediction.readout is readout:
            prediction = replace(prediction, readout=affine)
        return prediction.log_probs(rows)[:, 0].exp()

    def _kept(self, rows: Tensor) -> Tensor:
        where = self.index[rows]
        q = self.table[where.clamp_min(0)]
        certain = (where < 0)[:, None]
        states = torch.arange(q.shape[-1], device=q.device)
        return torch.where(certain, (states == self.prediction.x_t.flatten()[rows][:, None]).to(q), q)


@torch.no_grad()
def draw(target: Prediction, draws: Draws, *, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """One x_0 from each component, x_n ~ ∏_d p^d(· | x_u; λ_n): [B, N, D] int64, N the number of components.

    Positions without uncertainty keep their token.
    """
    return draw_with_marginals(target, draws, chunk_bytes=chunk_bytes, keep_bytes=0)[0]


@torch.no_grad()
def draw_with_marginals(
    target: Prediction, draws: Draws, *, chunk_bytes: int = CHUNK_BYTES, keep_bytes: int
) -> tuple[Tensor, Marginals]:
    """`draw`, and the target's marginals; they are kept if the rows with uncertainty take at most `keep_bytes`."""
    target = demodulated(target, chunk_bytes)
    size, components, positions = target.shape
    x = target.x_t[:, None, :].expand(size, components, positions).clone()
    uniform = draws.uniform(components, positions)
    marginals = _empty_table(target, keep_bytes)

    def take(rows: Tensor, p: Tensor) -> None:
        example, position = rows // positions, rows % positions
        x[example, :, position] = categorical(p, uniform[example, :, position])
        if marginals.table is not None:
            weights = mixture_log_weights(target).to(p).exp()
            marginals.table[marginals.index[rows]] = torch.matmul(weights, p)

    if is_affine(target):
        _read_affine(target, take, chunk_bytes)
    else:
        for rows in target.chunks(chunk_bytes):
            take(rows, target.log_probs(rows).exp())
    return x, marginals


@run_eagerly
def _read_affine(target: Prediction, take: Callable[[Tensor, Tensor], None], chunk_bytes: int) -> None:
    """take(rows, p [P, N, S]) for every chunk of rows with uncertainty, all within one call of the readout."""
    rows = Rows.active(target, chunk_bytes)
    at_a_time = rows_at_a_time(target, chunk_bytes)

    def read(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
        for chunk in (slice(k, k + at_a_time) for k in range(0, len(rows), at_a_time)):
            h = features[rows.example[chunk], :, rows.column[chunk]]
            logits = lowered(affine(h, rows.position[chunk]), target.parameterisation.excluded)
            take(rows.number[chunk], logits.softmax(-1))
        return ()

    within_readout(target, rows.features, read)


def _empty_table(target: Prediction, keep_bytes: int) -> Marginals:
    """Marginals with room for the rows with uncertainty, or without a table if they take more than `keep_bytes`."""
    active = target.active().flatten()
    wide = torch.float64 if target.features.dtype == torch.float64 else torch.float32
    number = int(active.sum())
    if number * target.num_states * wide.itemsize > keep_bytes:
        return Marginals(target)
    table = torch.zeros(max(number, 1), target.num_states, dtype=wide, device=active.device)
    return Marginals(target, table, torch.where(active, active.cumsum(0) - 1, -1))


def demodulated(prediction: Prediction, chunk_bytes: int) -> Prediction:
    """The prediction with its modulation applied to the features of the rows with uncertainty: [B·M, D, H].

    So that reading it calls no module but the readout.
    """
    if prediction.modulation is None:
        return prediction
    rows = Rows.active(prediction, chunk_bytes)
    size, components, positions = len(prediction.x_t), prediction.components, prediction.x_t.shape[1]
    width = prediction.features.shape[-1]
    features = rows.features.new_zeros(size, components, positions, width)
    features[rows.number // positions, :, rows.position] = rows.features[:, :, 0]
    return replace(prediction, features=features.flatten(0, 1), modulation=None)


def mixture_log_weights(prediction: Prediction) -> Tensor:
    """log w_m: [M] float64, equal weights unless the prediction carries its own."""
    if prediction.log_weights is not None:
        return prediction.log_weights.to(prediction.features.device)
    components = prediction.shape[1]
    return torch.full((components,), -math.log(components), dtype=torch.float64, device=prediction.features.device)
