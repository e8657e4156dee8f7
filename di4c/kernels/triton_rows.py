"""The row functions by Triton kernels, for float32 logits on CUDA; see rows.py for the formulas."""

import torch
from torch import Tensor

from di4c.kernels import triton_kernels as kernels
from di4c.kernels.adding import chosen_table
from di4c.kernels.rows import Against, Lines, Logits, RowGradients, RowValues

ADDS_BIAS, BUFFERED = True, False
"""The kernels add the bias to the bare product; every chunk has tensors of its own, which CUDA's allocator keeps."""

LARGEST_TILE, SMALLEST_TILE = 1024, 128
PROGRAMS_A_MULTIPROCESSOR = 2
INTERPRETED_MULTIPROCESSORS = 1
"""What stands for a device in Triton's interpreter."""


def row_values(logits: Logits, against: Against, scratch: Tensor | None = None) -> RowValues:
    """The wanted RowValues of a chunk; kept: normalisers [P, M], and of each marginal its mass [J, P] and pulled [J, P, M]."""
    z = logits.z
    normaliser = normalisers(logits)
    chosen = None if against.tokens is None else _chosen(logits, normaliser, against)
    if not against.q:
        return RowValues(chosen, kept=(normaliser,))
    (rows, components, states), targets, tile = z.shape, len(against.q), _tile(z, z.shape[0])
    tiles, has_kl, componentwise = -(-states // tile), against.kl, against.componentwise
    sums = z.new_zeros(tiles, 4, targets, rows)
    pulled = z.new_zeros(tiles if has_kl else 0, targets, rows, components)
    kernels.divergences[rows, tiles](
        *_pointers(logits), normaliser, _log_weights(against, z), _stacked(against.q), sums, pulled, rows, components, states, targets,
        _stride(logits), BIAS=_kind(logits), KL=has_kl, COMPONENTWISE=componentwise, JP=_power(targets), BS=tile,
    )  # fmt: skip
    mass, negative_entropy, cross, mean_log = sums.sum(0)
    kl = negative_entropy - cross if has_kl else None
    return RowValues(
        chosen, kl, negative_entropy - mean_log if componentwise else None, (normaliser, mass, pulled.sum(0))
    )


def row_gradient(
    logits: Logits,
    against: Against,
    kept: tuple[Tensor, ...],
    given: RowGradients,
    scratch: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """The gradient with respect to z: [P, M, S] in `dtype`."""
    normaliser = kept[0]
    if given.chosen is not None and against.row is not None:
        return _with_table(logits, against, kept, given, dtype)
    row_sums = torch.zeros_like(normaliser) if given.chosen is None else given.chosen.sum(-1)
    return _gradient(logits, against, kept, given, row_sums, dtype)


def _gradient(
    logits: Logits,
    against: Against,
    kept: tuple[Tensor, ...],
    given: RowGradients,
    row_sums: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """The kernel's, `row_sums` [P, M] being the sums over what was chosen."""
    z, (normaliser, *of_targets) = logits.z, kept
    (rows, components, states), targets, tile = z.shape, len(against.q), _tile(z, z.shape[0])
    log_weights = _log_weights(against, z)
    kl, componentwise = given.kl, given.componentwise
    if kl is not None:
        row_sums = row_sums - (kl[..., None] * of_targets[1]).sum(0)
    if componentwise is not None:
        row_sums = row_sums - (componentwise * of_targets[0]).sum(0)[:, None] * log_weights.exp()
    samples = 0 if given.chosen is None else given.chosen.shape[-1]
    out = z.new_empty(z.shape, dtype=dtype)
    nothing = z
    kernels.gradient[rows, -(-states // tile)](
        *_pointers(logits), normaliser, log_weights, row_sums.contiguous(),
        _stacked(against.q) if targets else nothing, *(nothing if g is None else g.contiguous() for g in (kl, componentwise)),
        nothing if against.tokens is None else against.tokens.contiguous(),
        nothing if given.chosen is None else given.chosen.contiguous(), out, rows, components, states, targets, samples, _stride(logits),
        BIAS=_kind(logits), KL=kl is not None, COMPONENTWISE=componentwise is not None, CHOSEN=samples > 0,
        JP=_power(max(targets, 1)), NP=_power(max(samples, 1)), BS=tile,
    )  # fmt: skip
    return out


def _with_table(
    logits: Logits, against: Against, kept: tuple[Tensor, ...], given: RowGradients, dtype: torch.dtype
) -> Tensor:
    """The gradient where lines share rows: a row may have any number of tokens, so they are summed before the kernel's turn."""
    rows, _, states = logits.z.shape
    table = chosen_table(against.row, against.tokens, given.chosen, rows, states)
    others = RowGradients(None, given.kl, given.componentwise)
    return _gradient(logits, against, kept, others, table.sum(-1), torch.float32).add_(table).to(dtype)


def row_draw(logits: Logits, lines: Lines, scratch: Tensor | None = None, mean: Tensor | None = None) -> Tensor | None:
    """A state of each distribution of the rows: [P, C] int64, or None without uniforms; their mean is written to `mean` [P, S]."""
    z, normaliser = logits.z, normalisers(logits)
    (rows, each, states), certain = z.shape, lines.certain
    if mean is not None:
        tile = _tile(z, rows)
        kernels.means[rows, -(-states // tile)](
            *_pointers(logits), normaliser, lines.weights.to(z).contiguous(), z if certain is None else certain.contiguous(), mean,
            each, states, _stride(logits), BIAS=_kind(logits), CERTAIN=certain is not None, BS=tile,
        )  # fmt: skip
    if lines.uniform is None:
        return None
    tile = _tile(z, rows * each)
    tiles, splits = -(-states // tile), _splits(z, rows * each, -(-states // tile))
    mass = z.new_empty(rows * each, tiles, dtype=torch.float64)
    drawn = torch.empty(rows, each, dtype=torch.int64, device=z.device)
    shape = (each, states, tiles)
    kernels.masses[rows * each, splits](
        *_pointers(logits), normaliser, mass, *shape, -(-tiles // splits), _stride(logits), BIAS=_kind(logits), BS=tile
    )
    kernels.invert[rows * each,](
        *_pointers(logits), normaliser, mass, lines.uniform.contiguous(), drawn, *shape, _stride(logits), BIAS=_kind(logits),
        TP=_power(tiles), BS=tile,
    )  # fmt: skip
    return drawn if certain is None else torch.where(certain >= 0, certain, drawn)


def normalisers(logits: Logits) -> Tensor:
    """log Σ_s exp z_m(s): [P, M]."""
    z = logits.z
    rows, components, states = z.shape
    tile = _tile(z, rows * components)
    tiles = -(-states // tile)
    splits = _splits(z, rows * components, tiles)
    out = z.new_empty(splits, rows, components)
    kernels.normalisers[rows * components, splits](
        *_pointers(logits),
        out,
        rows * components,
        components,
        states,
        _stride(logits),
        -(-tiles // splits),
        BIAS=_kind(logits),
        BS=tile,
    )
    return out[0] if splits == 1 else out.logsumexp(0)


def programs(rows: int, states: int, multiprocessors: int) -> int:
    """How many programs sweep the states of so many rows: two a multiprocessor and more wherever S allows it."""
    return rows * -(-states // _tile_for(rows, states, multiprocessors))


def _tile_for(rows: int, states: int, multiprocessors: int) -> int:
    """States of a tile: the most for which the programs fill the device, a power of two."""
    tile = min(LARGEST_TILE, max(SMALLEST_TILE, _power(states)))
    while tile > SMALLEST_TILE and rows * -(-states // tile) < PROGRAMS_A_MULTIPROCESSOR * multiprocessors:
        tile //= 2
    return tile


def _tile(z: Tensor, rows: int) -> int:
    return (
        _tile_for(rows, z.shape[-1], _multiprocessors(z)) if z.is_cuda else (16 if z.shape[-1] <= 64 else SMALLEST_TILE)
    )


def _splits(z: Tensor, lines: int, tiles: int) -> int:
    """Programs that share a line's tiles. There may be no line: a chunk's rows are as many as the data ask for."""
    return min(tiles, max(1, -(-PROGRAMS_A_MULTIPROCESSOR * _multiprocessors(z) // max(1, lines))))


def _multiprocessors(z: Tensor) -> int:
    return (
        torch.cuda.get_device_properties(z.device).multi_processor_count if z.is_cuda else INTERPRETED_MULTIPROCESSORS
    )


def _power(n: int) -> int:
    """The power of two from n up."""
    return 1 << (n - 1).bit_length()


def _pointers(logits: Logits) -> tuple[Tensor, Tensor, Tensor]:
    assert logits.z.is_contiguous() and logits.z.dtype == torch.float32
    nothing = logits.z
    position = nothing if _kind(logits) < 2 else logits.position.contiguous()
    return logits.z, nothing if logits.bias is None else logits.bias.contiguous(), position


def _kind(logits: Logits) -> int:
    return 0 if logits.bias is None else logits.bias.dim()


def _stride(logits: Logits) -> int:
    return logits.bias.shape[-1] if _kind(logits) == 2 else 0


def _log_weights(against: Against, z: Tensor) -> Tensor:
    return against.log_weights.to(z).contiguous()


def _stacked(q: list[Tensor]) -> Tensor:
    """[J, P, S]; one marginal is taken as it is."""
    return q[0][None].contiguous() if len(q) == 1 else torch.stack(q)


def _chosen(logits: Logits, normaliser: Tensor, against: Against) -> Tensor:
    """ℓ_m(x_n): [P, M, N], or [Q, M, N] where lines share rows."""
    z, bias, tokens, row = logits.z, logits.bias, against.tokens, against.row
    if row is None:
        found = z.gather(-1, tokens[:, None].expand(-1, z.shape[1], -1))
    else:
        found = z.transpose(1, 2)[row[:, None], tokens].transpose(1, 2)
    if bias is not None and bias.dim() == 1:
        found = found + bias[tokens][:, None]
    elif bias is not None:
        position = logits.position if row is None else logits.position[row]
        found = found + bias[position[:, None], tokens][:, None]
    return found - (normaliser if row is None else normaliser[row])[..., None]
