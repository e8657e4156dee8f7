"""The turn of rotary positions by a Triton kernel; imported only where it is used, since Triton is optional."""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 256
"""Pairs of channels that a program of one warp turns: eight a thread, which loads them in one go where pairs are halves apart."""


@triton.jit(do_not_specialize=["positions"])
def turn_pairs(
    x, stride, tables, out, out_stride, positions, pairs, DISTANCE: tl.constexpr, SIGN: tl.constexpr, TILE: tl.constexpr
):
    """Rows of out, `out_stride` apart, from rows of x, `stride` apart, of 2·pairs numbers each; `positions` of them follow one another.

    tables [2, positions, 2·pairs].
    """
    row = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = pair < pairs
    first = pair // DISTANCE * (2 * DISTANCE) + pair % DISTANCE
    at = row % positions * (2 * pairs) + first
    cos = tl.load(tables + at, mask=inside, other=0.0).to(tl.float32)
    sin = (
        tl.load(tables + tl.cast(positions, tl.int64) * (2 * pairs) + at, mask=inside, other=0.0).to(tl.float32) * SIGN
    )
    a = tl.load(x + row * stride + first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x + row * stride + first + DISTANCE, mask=inside, other=0.0).to(tl.float32)
    place = out + row * out_stride + first
    tl.store(place, (a * cos - b * sin).to(out.dtype.element_ty), mask=inside)
    tl.store(place + DISTANCE, (b * cos + a * sin).to(out.dtype.element_ty), mask=inside)


def turn(x: Tensor, tables: Tensor, distance: int, sign: int = 1, out: Tensor | None = None) -> Tensor:
    """As the torch operators turn x [B, D, C] by tables [2, D, C], in float32, rounded once: [B, D, C], `out` if it is given.

    out: the first channels of a contiguous tensor.
    """
    (_, positions, channels), rows = x.shape, x.reshape(-1, x.shape[-1])  # a view of a projection's first channels
    rows = rows if rows.stride(-1) == 1 else rows.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    if out.numel():
        turn_pairs[len(rows), triton.cdiv(channels // 2, TILE)](
            rows, rows.stride(0), tables.contiguous(), out, out.stride(1), positions, channels // 2,
            DISTANCE=distance, SIGN=sign, TILE=TILE, num_warps=1,
        )  # fmt: skip
    return out
