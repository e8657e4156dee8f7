"""The target of a loss: a sample of each of its components, and its λ-averaged marginals q̄, read in one pass."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from di4c.algorithm.affine import Affine, Rows, as_given, is_affine, lowered, rows_at_a_time, uncertain_rows, within_readout
from di4c.algorithm.workspace import Workspace
from di4c.contracts import CHUNK_BYTES, Draws, Prediction, categorical
from di4c.eager import run_eagerly

KEPT_CHUNKS = 3
"""The marginals are kept for the loss if they take at most so many chunks' bytes; the pass that uses them works in what is left."""


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
    def probs(
        self, rows: Tensor, readout: nn.Module | None = None, affine: Affine | None = None, room: Workspace | None = None
    ) -> Tensor:
        """q̄ at rows b·D + d: [P, S]. `affine` stands in for `readout`, whose call we may be inside of; `room` is free to work in."""
        if self.table is not None:
            return self._kept(rows)
        prediction = self.prediction.average()
        if affine is not None and prediction.readout is readout:
            if room is not None and self._fits(room):
                with as_given(room.logits):
                    return self._read(rows, affine, room)
            prediction = replace(prediction, readout=affine)
        p = prediction.log_probs(self._rows_of_copies(rows))[:, 0].exp().unflatten(0, (len(rows), self.copies))
        with as_given(p):
            return torch.einsum("pns,n->ps", p, self.weights.to(p)) if self.copies > 1 else p[:, 0]

    def _fits(self, room: Workspace) -> bool:
        """Whether `_read` may work in `room`."""
        prediction = self.prediction
        whole = is_affine(prediction) and prediction.modulation is None
        return whole and room.component_rows >= prediction.components * self.copies

    @property
    def cheap(self) -> bool:
        """Whether reading a row makes no more than a few [S]: it is kept, or of a single component."""
        return self.table is not None or self.prediction.components * self.copies == 1

    @property
    def kept_bytes(self) -> int:
        """Of the table."""
        return 0 if self.table is None else self.table.nbytes

    @property
    def weights(self) -> Tensor:
        """Of the copies: [copies] float64, their sum 1."""
        device = self.prediction.x_t.device
        if self.copy_weights is None:
            return torch.full((self.copies,), 1 / self.copies, dtype=torch.float64, device=device)
        return self.copy_weights.to(device, torch.float64)

    def _read(self, rows: Tensor, affine: Affine, room: Workspace) -> Tensor:
        """q̄ [P, S] of an affine prediction, as many rows at a time as `room` holds."""
        prediction, positions = self.prediction, self.prediction.x_t.shape[1]
        weights = (self.weights[:, None] * mixture_log_weights(prediction).exp()).flatten().to(room.logits)  # [copies·N]
        tokens, active = prediction.x_t.flatten(), prediction.active().flatten()
        q = room.logits.new_empty(len(rows), prediction.num_states)
        for some, out in zip(*(x.split(room.component_rows // len(weights)) for x in (rows, q)), strict=True):
            of_copies = self._rows_of_copies(some)
            h = prediction.component_features(of_copies)
            here = room.view(*h.shape[:2])
            logits = lowered(affine(h, of_copies % positions, out=here.logits), prediction.parameterisation.excluded)
            p = torch.softmax(logits, -1, out=here.scratch).mul_(active[of_copies, None, None])
            token = tokens[of_copies, None, None].expand(*h.shape[:2], 1)
            p.scatter_add_(-1, token, (~active[of_copies, None, None]).to(p).expand_as(token))
            torch.matmul(weights, p.view(len(some), len(weights), -1), out=out)
        return q

    def _rows_of_copies(self, rows: Tensor) -> Tensor:
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


@dataclass(frozen=True)
class TargetDraw:
    """samples [B, N, D], one of each of the target's N components; its marginals; joint [B, N, N] or None,
    Σ_d log p^d(x_n^d | x_u; λ_m) of sample n (first) under component m."""

    samples: Tensor
    marginals: Marginals
    joint: Tensor | None = None


@torch.no_grad()
def draw(target: Prediction, draws: Draws, *, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """One x_0 from each component, x_n ~ ∏_d p^d(· | x_u; λ_n): [B, N, D] int64, N the number of components.

    Positions without uncertainty keep their token.
    """
    return draw_target(target, draws, chunk_bytes=chunk_bytes, keep_bytes=0).samples


def draw_with_marginals(
    target: Prediction, draws: Draws, *, chunk_bytes: int = CHUNK_BYTES, keep_bytes: int
) -> tuple[Tensor, Marginals]:
    """`draw`, and the target's marginals; they are kept if the rows with uncertainty take at most `keep_bytes`."""
    found = draw_target(target, draws, chunk_bytes=chunk_bytes, keep_bytes=keep_bytes)
    return found.samples, found.marginals


@torch.no_grad()
def draw_target(
    target: Prediction,
    draws: Draws,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    keep_bytes: int,
    copies: int = 1,
    copy_weights: Tensor | None = None,
    score: bool = False,
) -> TargetDraw:
    """A sample of every component, the marginals (kept if they take at most `keep_bytes`) and, with `score`, the joint.

    With copies = N > 1 the target is [B·N] examples of one component (see Marginals), and so are `draws`.
    """
    number = uncertain_rows(target)
    target = demodulated(target, number, chunk_bytes)
    size, components, positions = target.shape
    assert copies == 1 or (components == 1 and not score), "copies have one component each, and no joint"
    x = target.x_t[:, None, :].expand(size, components, positions).clone()
    uniform = draws.uniform(components, positions)
    marginals = _empty_table(Marginals(target, copies=copies, copy_weights=copy_weights), number, keep_bytes)
    joint = torch.zeros(size, components, components, dtype=torch.float64, device=x.device) if score else None

    def take(rows: Tensor, p: Tensor) -> None:
        example, position = rows // positions, rows % positions
        chosen = categorical(p, uniform[example, :, position])  # [P, N]
        x[example, :, position] = chosen
        if marginals.table is not None:
            _add_to_table(marginals, rows, torch.matmul(mixture_log_weights(target).to(p).exp(), p))
        if joint is not None:
            of_each = p.gather(-1, chosen[:, None].expand(-1, components, -1))  # [P, M, N]
            joint.index_add_(0, example, of_each.clamp_min(torch.finfo(p.dtype).tiny).log().transpose(1, 2).to(joint))

    if is_affine(target):
        _read_affine(target, number, take, chunk_bytes)
    else:
        for rows in target.chunks(chunk_bytes):
            p = target.log_probs(rows).exp()
            with as_given(p):
                take(rows, p)
    return TargetDraw(x.view(size // copies, copies * components, positions), marginals, joint)


@run_eagerly
def _read_affine(target: Prediction, number: Tensor, take: Callable[[Tensor, Tensor], None], chunk_bytes: int) -> None:
    """take(rows, p [P, N, S]) for every chunk of the rows of these numbers, all within one call of the readout."""
    rows = Rows.at(target, number, chunk_bytes)
    at_a_time = rows_at_a_time(target, chunk_bytes)

    def read(features: Tensor, affine: Affine) -> tuple[Tensor, ...]:
        with as_given(features):
            room = Workspace.empty(min(at_a_time, len(rows)), target.components, affine.num_states, features)
            for chunk in (slice(k, k + at_a_time) for k in range(0, len(rows), at_a_time)):
                h = features[rows.example[chunk], :, rows.column[chunk]]
                here = room.first(len(h))
                logits = lowered(affine(h, rows.position[chunk], out=here.logits), target.parameterisation.excluded)
                take(rows.number[chunk], torch.softmax(logits, -1, out=here.scratch))
        return ()

    within_readout(target, rows.features, read)


def _empty_table(marginals: Marginals, active_rows: Tensor, keep_bytes: int) -> Marginals:
    """With room for the rows with uncertainty, or without a table if they take more than `keep_bytes`.

    A row may be uncertain although no copy is: the copies may have fixed it at different tokens.
    """
    target = marginals.prediction
    active = target.active().unflatten(0, (-1, marginals.copies))  # [B, copies, D]
    tokens = target.x_t.unflatten(0, (-1, marginals.copies))
    uncertain = active.any(1) | (tokens != tokens[:, :1]).any(1)
    number = len(active_rows) if marginals.copies == 1 else int(uncertain.sum())
    if number * target.num_states * target.wide.itemsize > keep_bytes:
        return marginals
    table = torch.zeros(max(number, 1), target.num_states, dtype=target.wide, device=active.device)
    index = torch.where(uncertain.flatten(), uncertain.flatten().cumsum(0) - 1, -1)
    kept = replace(marginals, table=table, index=index)
    if marginals.copies > 1:
        fixed = (~active & uncertain[:, None]).flatten().nonzero().squeeze(-1)
        _add_to_table(kept, fixed, nn.functional.one_hot(tokens.flatten()[fixed], target.num_states).to(table))
    return kept


def _add_to_table(marginals: Marginals, rows: Tensor, p: Tensor) -> None:
    """Adds the distributions p [P, S] of the prediction's rows, each with its copy's weight."""
    positions, copies = marginals.prediction.x_t.shape[1], marginals.copies
    example = rows // positions
    if copies > 1:
        p = p * marginals.weights.to(p)[example % copies, None]
    marginals.table.index_add_(0, marginals.index[example // copies * positions + rows % positions], p)


def demodulated(prediction: Prediction, number: Tensor, chunk_bytes: int) -> Prediction:
    """The prediction with its modulation applied to the features of the rows of these numbers: [B·M, D, H].

    So that reading it calls no module but the readout.
    """
    if prediction.modulation is None:
        return prediction
    rows = Rows.at(prediction, number, chunk_bytes)
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
