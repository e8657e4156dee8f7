"""The row functions by Triton kernels, for float32 logits on CUDA; see rows.py for the formulas."""

from functools import cache, partial

import torch
from torch import Tensor

from di4c.kernels import triton_kernels as kernels
from di4c.kernels.adding import at_tokens, chosen_table
from di4c.kernels.rows import Against, Lines, Logits, RowValues, empty_rows

ADDS_BIAS, BUFFERED = True, False
"""The kernels add the bias to the bare product; every chunk has tensors of its own, which CUDA's allocator keeps."""

LARGEST_TILE, SMALLEST_TILE = 1024, 128
PROGRAMS_A_MULTIPROCESSOR = 2
INVERT_WARPS = 8
"""Of the programs that draw, which hold the masses of all tiles as well."""
INTERPRETED_MULTIPROCESSORS = 1
"""What stands for a device in Triton's interpreter."""


def row_values(logits: Logits, against: Against, scratch: Tensor | None = None) -> RowValues:
    """The wanted RowValues of a chunk; kept: normalisers [P, M], and of each marginal its mass [J, P] and pulled [J, P, M]."""
    z = logits.z
    normaliser = normalisers(logits)
    chosen = None if against.tokens is None else _chosen(logits, normaliser, against)
    if not against.q:
        return RowValues(chosen, kept=(normaliser,))
    (rows, components, states), targets, (tile, tiles) = z.shape, len(against.q), _tiles(z, len(z))
    sums = z.new_zeros(tiles, 4, targets, rows)
    pulled = z.new_zeros(tiles if against.kl else 0, targets, rows, components)
    kernels.divergences[rows, tiles](
        *_arguments(logits), normaliser, against.log_weights.to(z).contiguous(), _stacked(against.q), sums, pulled,
        rows, components, states, targets, BIAS=_kind(logits), KL=against.kl, COMPONENTWISE=against.componentwise, JP=_power(targets),
        **_of_tile(tile),
    )  # fmt: skip
    mass, negative_entropy, cross, mean_log = sums.sum(0)
    kl = negative_entropy - cross if against.kl else None
    componentwise = negative_entropy - mean_log if against.componentwise else None
    return RowValues(chosen, kl, componentwise, (normaliser, mass, pulled.sum(0)))


def row_gradient(
    logits: Logits, against: Against, given: RowValues, scratch: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The gradient with respect to z: [P, M, S] in `dtype`."""
    z, (normaliser, *of_targets), chosen, table = logits.z, given.kept, given.chosen, None
    if chosen is not None and against.row is not None:
        # A row may have any number of tokens then: they are summed before the kernel's turn.
        table, chosen = chosen_table(against.row, against.tokens, chosen, len(z), z.shape[-1]), None
    summed = chosen if table is None else table
    row_sums = torch.zeros_like(normaliser) if summed is None else summed.sum(-1)
    (rows, components, states), targets, (tile, tiles) = z.shape, len(against.q), _tiles(z, len(z))
    log_weights, kl, componentwise = against.log_weights.to(z).contiguous(), given.kl, given.componentwise
    if kl is not None:
        row_sums = row_sums - (kl[..., None] * of_targets[1]).sum(0)
    if componentwise is not None:
        row_sums = row_sums - (componentwise * of_targets[0]).sum(0)[:, None] * log_weights.exp()
    samples = 0 if chosen is None else chosen.shape[-1]
    room = partial(empty_rows, rows * components, states, device=z.device, width=_width(z))
    out = room(dtype=dtype if table is None else torch.float32).view(z.shape)
    others = (_or_nothing(x, z) for x in (_stacked(against.q) if targets else None, kl, componentwise))
    given_all = (*_arguments(logits), normaliser, log_weights, row_sums.contiguous(), *others)
    options = {"BIAS": _kind(logits), "KL": kl is not None, "COMPONENTWISE": componentwise is not None}
    sizes = (rows, components, states, targets)
    kernels.gradient[rows, tiles](*given_all, out, *sizes, JP=_power(max(targets, 1)), **_of_tile(tile), **options)
    if samples:
        tokens = against.tokens.contiguous(), chosen.contiguous()
        kernels.gradient_at_tokens[rows, samples](
            *given_all, *tokens, out, *sizes, samples, MP=_power(components), **options
        )
    return out if table is None else torch.add(out, table, out=room(dtype=dtype).view(z.shape))


def row_draw(logits: Logits, lines: Lines, scratch: Tensor | None = None, mean: Tensor | None = None) -> Tensor | None:
    """A state of each distribution of the rows: [P, C] int64, or None without uniforms; their mean is written to `mean` [P, S]."""
    z, normaliser = logits.z, normalisers(logits)
    (rows, each, states), certain = z.shape, lines.certain
    if mean is not None:
        tile, tiles = _tiles(z, rows)
        kernels.means[rows, tiles](
            *_arguments(logits), normaliser, lines.weights.to(z).contiguous(), _or_nothing(certain, z), mean,
            each, states, BIAS=_kind(logits), CERTAIN=certain is not None, **_of_tile(tile),
        )  # fmt: skip
    if lines.uniform is None:
        return None
    count = rows * each
    tile, tiles = _tiles(z, count)
    splits = _splits(z, count, tiles)
    mass = z.new_empty(count, tiles, dtype=torch.float64)
    drawn = torch.empty(rows, each, dtype=torch.int64, device=z.device)
    given, shape = (*_arguments(logits), normaliser, mass), (each, states, tiles)
    options = {"BIAS": _kind(logits)} | _of_tile(tile)
    kernels.masses[count, splits](*given, *shape, -(-tiles // splits), **options)
    options |= {"TP": _power(tiles), "num_warps": INVERT_WARPS}
    kernels.invert[count,](*given, lines.uniform.contiguous(), drawn, *shape, **options)
    return drawn if certain is None else torch.where(certain >= 0, certain, drawn)


def normalisers(logits: Logits) -> Tensor:
    """log Σ_s exp z_m(s): [P, M]."""
    z, (rows, components, states) = logits.z, logits.z.shape
    lines = rows * components
    tile, tiles = _tiles(z, lines)
    splits = _splits(z, lines, tiles)
    out = z.new_empty(splits, rows, components)
    kernels.normalisers[lines, splits](
        *_arguments(logits), out, lines, components, states, -(-tiles // splits), BIAS=_kind(logits), **_of_tile(tile)
    )
    return out[0] if splits == 1 else out.logsumexp(0)


def warps_for(tile: int) -> int:
    """Warps of a program: four states a thread, which are one load of 16 bytes."""
    return max(1, tile // 128)


def tile_for(rows: int, states: int, multiprocessors: int) -> int:
    """States of a tile: the most for which the programs that sweep so many rows fill the device, a power of two."""
    tile = min(LARGEST_TILE, max(SMALLEST_TILE, _power(states)))
    while tile > SMALLEST_TILE and rows * -(-states // tile) < PROGRAMS_A_MULTIPROCESSOR * multiprocessors:
        tile //= 2
    return tile


def _tiles(z: Tensor, rows: int) -> tuple[int, int]:
    """(states of a tile, tiles of a row) where so many rows are swept."""
    states = z.shape[-1]
    interpreted = 16 if states <= 64 else SMALLEST_TILE
    tile = tile_for(rows, states, _multiprocessors(z.device)) if z.is_cuda else interpreted
    return tile, -(-states // tile)


def _of_tile(tile: int) -> dict[str, int]:
    return {"BS": tile, "num_warps": warps_for(tile)}


def _splits(z: Tensor, lines: int, tiles: int) -> int:
    """Programs that share a line's tiles. There may be no line: a chunk's rows are as many as the data ask for."""
    return min(tiles, max(1, -(-PROGRAMS_A_MULTIPROCESSOR * _multiprocessors(z.device) // max(1, lines))))


@cache
def _multiprocessors(device: torch.device) -> int:
    interpreted = device.type != "cuda"
    return (
        INTERPRETED_MULTIPROCESSORS if interpreted else torch.cuda.get_device_properties(device).multi_processor_count
    )


def _power(n: int) -> int:
    """The power of two from n up."""
    return 1 << (n - 1).bit_length()


def _arguments(logits: Logits) -> tuple[Tensor, int, Tensor, Tensor, int]:
    """(z, its width, bias, position, stride of a position's bias)."""
    z, bias, by_position = logits.z, logits.bias, _kind(logits) == 2
    width = _width(z)
    assert width >= z.shape[-1] and z.dtype == torch.float32
    position = logits.position if by_position else None
    return z, width, _or_nothing(bias, z), _or_nothing(position, z), bias.shape[-1] if by_position else 0


def _width(z: Tensor) -> int:
    """How far z's distributions are apart; the stride of a dimension of size 1 says nothing of it."""
    rows, components, states = z.shape
    width = z.stride(1) if components > 1 else z.stride(0) if rows > 1 else states
    assert z.stride(2) == 1 and (rows <= 1 or z.stride(0) == components * width)
    return width


def _or_nothing(x: Tensor | None, z: Tensor) -> Tensor:
    """What a kernel is given of x; the logits where it has no use for it."""
    return z if x is None else x.contiguous()


def _kind(logits: Logits) -> int:
    return 0 if logits.bias is None else logits.bias.dim()


def _stacked(q: list[Tensor]) -> Tensor:
    """[J, P, S]; one marginal is taken as it is."""
    return q[0][None].contiguous() if len(q) == 1 else torch.stack(q)


def _chosen(logits: Logits, normaliser: Tensor, against: Against) -> Tensor:
    """ℓ_m(x_n): [P, M, N], or [Q, M, N] where lines share rows."""
    bias, tokens = logits.bias, against.tokens
    found = at_tokens(logits.z, tokens, against.row)
    if bias is not None:
        added = bias[tokens] if bias.dim() == 1 else bias[against.of_lines(logits.position)[:, None], tokens]
        found = found + added[:, None]
    return found - against.of_lines(normaliser)[..., None]
