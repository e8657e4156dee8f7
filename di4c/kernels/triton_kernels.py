"""Triton kernels over the logits of a chunk; imported only where they are used, since Triton is optional.

z [P, M, S] float32 lies in memory, each distribution `width` ≥ S numbers after the one before; a tile is BS states of one row, and a
program loops over the row's components. Loads and stores go up to the width: where that is a multiple of 16 they are of 16 bytes a
thread (with S = 50258 they would be of 4), and what lies behind S is put aside. There is no product here (a library makes the logits and multiplies their gradient) and no atomic: partial sums go to a place of their own.
BIAS: 0 none, 1 for all rows, 2 a line of it a position. Offsets are 64-bit: M·S·P passes 2³¹. Nothing is compiled anew for another
number of rows, which differs from chunk to chunk.
"""

import triton
import triton.language as tl

NOTHING = tl.constexpr(-1e30)
"""The logit of what is only padding; finite, so that no difference of infinities arises."""


@triton.jit
def _logits(line, s, S, width):
    """The logits of a distribution at states s: [BS], NOTHING where there is no state."""
    return tl.where(s < S, tl.load(line + s, mask=s < width, other=NOTHING), NOTHING)


@triton.jit
def _bias(bias, position, row, s, inside, stride, BIAS: tl.constexpr, BS: tl.constexpr):
    """The bias of the row at states s: [BS] float32."""
    value = tl.zeros((BS,), dtype=tl.float32)
    if BIAS == 1:
        value = tl.load(bias + s, mask=inside, other=0.0).to(tl.float32)
    if BIAS == 2:
        at = tl.load(position + row).to(tl.int64) * stride
        value = tl.load(bias + at + s, mask=inside, other=0.0).to(tl.float32)
    return value


@triton.jit
def _log_mean(base, b, lse, log_w, s, M, S, width, BS: tl.constexpr):
    """log p̄ = log Σ_m w_m exp(z_m − lse_m) at states s: [BS], by an online maximum: p̄ may underflow."""
    top = tl.full((BS,), NOTHING, tl.float32)
    total = tl.zeros((BS,), dtype=tl.float32)
    for m in range(0, M):
        z = _logits(base + tl.cast(m, tl.int64) * width, s, S, width)
        term = z + b - tl.load(lse + m) + tl.load(log_w + m)
        above = tl.maximum(top, term)
        total = total * tl.exp(top - above) + tl.exp(term - above)
        top = above
    return top + tl.log(total)


@triton.jit(do_not_specialize=["lines", "per_split"])
def normalisers(z, width, bias, position, stride, out, lines, M, S, per_split, BIAS: tl.constexpr, BS: tl.constexpr):
    """out [splits, P·M]: log Σ_s exp z over the states of a split."""
    line, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    top = tl.full((BS,), NOTHING, tl.float32)
    total = tl.zeros((BS,), dtype=tl.float32)
    for tile in range(0, per_split):
        s = ((split * per_split + tile) * BS + tl.arange(0, BS)).to(tl.int64)
        inside = s < S
        value = _logits(z + line * width, s, S, width)
        value += _bias(bias, position, line // M, s, inside, stride, BIAS, BS)
        above = tl.maximum(top, value)
        total = total * tl.exp(top - above) + tl.where(inside, tl.exp(value - above), 0.0)
        top = above
    largest = tl.max(top, axis=0)
    sum_of_all = tl.sum(total * tl.exp(top - largest), axis=0)
    nothing = sum_of_all == 0  # not so for NaN, which the loss is to show
    value = tl.where(nothing, NOTHING, largest + tl.log(tl.where(nothing, 1.0, sum_of_all)))
    tl.store(out + split.to(tl.int64) * lines + line, value)


@triton.jit(do_not_specialize=["P"])
def divergences(
    z, width, bias, position, stride, lse, log_w, q, sums, pulled, P, M, S, J,
    BIAS: tl.constexpr, KL: tl.constexpr, COMPONENTWISE: tl.constexpr, JP: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Over a tile's states, for J marginals q [J, P, S]: sums [tiles, 4, J, P] with Σ q, Σ q log q, Σ q log p̄, Σ_m w_m Σ q log p_m,

    and pulled [tiles, J, P, M] with Σ_s q w_m p_m/p̄.
    """
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    s = tile * BS + tl.arange(0, BS)
    inside = s < S
    base = z + row * M * width
    b = _bias(bias, position, row, s, inside, stride, BIAS, BS)
    j = tl.arange(0, JP)
    marginal = tl.load(q + (j[:, None] * P + row) * S + s[None, :], mask=(j < J)[:, None] & inside[None, :], other=0.0)
    counts = marginal != 0
    place = sums + tile * 4 * J * P + j * P + row
    tl.store(place, tl.sum(marginal, axis=1), mask=j < J)
    negative_entropy = tl.where(counts, marginal * tl.log(tl.where(counts, marginal, 1.0)), 0.0)
    tl.store(place + J * P, tl.sum(negative_entropy, axis=1), mask=j < J)
    log_mean = tl.zeros((BS,), dtype=tl.float32)
    if KL:
        log_mean = _log_mean(base, b, lse + row * M, log_w, s, M, S, width, BS)
        tl.store(place + 2 * J * P, tl.sum(tl.where(counts, marginal * log_mean[None, :], 0.0), axis=1), mask=j < J)
    mean_log = tl.zeros((BS,), dtype=tl.float32)
    for m in range(0, M):
        log_p = _logits(base + tl.cast(m, tl.int64) * width, s, S, width) + b - tl.load(lse + row * M + m)
        weight = tl.load(log_w + m)
        if COMPONENTWISE:
            mean_log += tl.exp(weight) * log_p
        if KL:
            share = tl.exp(log_p + weight - log_mean)
            tl.store(pulled + ((tile * J + j) * P + row) * M + m, tl.sum(marginal * share[None, :], axis=1), mask=j < J)
    if COMPONENTWISE:
        tl.store(place + 3 * J * P, tl.sum(tl.where(counts, marginal * mean_log[None, :], 0.0), axis=1), mask=j < J)


@triton.jit(do_not_specialize=["P"])
def gradient(
    z, width, bias, position, stride, lse, log_w, row_sums, q, g_kl, g_componentwise, out, P, M, S, J,
    BIAS: tl.constexpr, KL: tl.constexpr, COMPONENTWISE: tl.constexpr, JP: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """out, as wide as z: A_m − p_m·row_sums_m of a tile's states (rows.py), without what chosen tokens add."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    s = tile * BS + tl.arange(0, BS)
    inside = s < S
    base = z + row * M * width
    b = _bias(bias, position, row, s, inside, stride, BIAS, BS)
    pull = tl.zeros((BS,), dtype=tl.float32)
    push = tl.zeros((BS,), dtype=tl.float32)
    log_mean = tl.zeros((BS,), dtype=tl.float32)
    if KL or COMPONENTWISE:
        j = tl.arange(0, JP)
        marginal = tl.load(
            q + (j[:, None] * P + row) * S + s[None, :], mask=(j < J)[:, None] & inside[None, :], other=0.0
        )
        if KL:
            of_kl = tl.load(g_kl + j * P + row, mask=j < J, other=0.0)
            pull = tl.sum(marginal * of_kl[:, None], axis=0)
            log_mean = _log_mean(base, b, lse + row * M, log_w, s, M, S, width, BS)
        if COMPONENTWISE:
            of_each = tl.load(g_componentwise + j * P + row, mask=j < J, other=0.0)
            push = tl.sum(marginal * of_each[:, None], axis=0)
    for m in range(0, M):
        log_p = _logits(base + tl.cast(m, tl.int64) * width, s, S, width) + b - tl.load(lse + row * M + m)
        value = -tl.exp(log_p) * tl.load(row_sums + row * M + m)
        weight = tl.load(log_w + m)
        if KL:
            value -= tl.exp(log_p + weight - log_mean) * pull
        if COMPONENTWISE:
            value -= tl.exp(weight) * push
        value = tl.where(inside, value, 0.0)
        tl.store(out + (row * M + m) * width + s, value.to(out.dtype.element_ty), mask=s < width)


@triton.jit(do_not_specialize=["P", "N"])
def gradient_at_tokens(
    z, width, bias, position, stride, lse, log_w, row_sums, q, g_kl, g_componentwise, tokens, g_chosen, out, P, M, S, J, N,
    BIAS: tl.constexpr, KL: tl.constexpr, COMPONENTWISE: tl.constexpr, MP: tl.constexpr,
):  # fmt: skip
    """The same for all components at the n-th token of a row, with what the row's N tokens add, in their order; after `gradient`.

    Programs of equal tokens write the same numbers.
    """
    row, token = tl.program_id(0).to(tl.int64), tl.load(tokens + tl.program_id(0).to(tl.int64) * N + tl.program_id(1))
    m = tl.arange(0, MP)
    here, line = m < M, row * M + m
    b = 0.0
    if BIAS == 1:
        b = tl.load(bias + token).to(tl.float32)
    if BIAS == 2:
        b = tl.load(bias + tl.load(position + row).to(tl.int64) * stride + token).to(tl.float32)
    log_p = tl.load(z + line * width + token, mask=here, other=NOTHING) + b - tl.load(lse + line, mask=here, other=0.0)
    weighted = log_p + tl.load(log_w + m, mask=here, other=NOTHING)
    value = -tl.exp(log_p) * tl.load(row_sums + line, mask=here, other=0.0)
    pull, push = 0.0, 0.0
    for j in range(0, J):
        marginal = tl.load(q + (j * P + row) * S + token)
        if KL:
            pull += marginal * tl.load(g_kl + j * P + row)
        if COMPONENTWISE:
            push += marginal * tl.load(g_componentwise + j * P + row)
    if KL:
        top = tl.max(weighted, axis=0)
        share = tl.exp(weighted - top)
        value -= share / tl.sum(share, axis=0) * pull
    if COMPONENTWISE:
        value -= tl.exp(tl.load(log_w + m, mask=here, other=NOTHING)) * push
    for k in range(0, N):
        if tl.load(tokens + row * N + k) == token:
            value += tl.load(g_chosen + line * N + k, mask=here, other=0.0)
    tl.store(out + line * width + token, value.to(out.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["per_split"])
def masses(z, width, bias, position, stride, lse, out, C, S, tiles, per_split, BIAS: tl.constexpr, BS: tl.constexpr):
    """out [P·C, tiles] float64: Σ exp(z − lse) over each tile of a line."""
    line, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    normaliser = tl.load(lse + line)
    for step in range(0, per_split):
        tile = split * per_split + step
        s = (tile * BS + tl.arange(0, BS)).to(tl.int64)
        inside = s < S
        value = _logits(z + line * width, s, S, width)
        value += _bias(bias, position, line // C, s, inside, stride, BIAS, BS)
        p = tl.where(inside, tl.exp(value - normaliser), 0.0).to(tl.float64)
        tl.store(out + line * tiles + tile, tl.sum(p, axis=0), mask=tile < tiles)


@triton.jit
def invert(
    z, width, bias, position, stride, lse, mass, uniform, out, C, S, tiles, BIAS: tl.constexpr, TP: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """out [P·C]: the first state whose cumulative mass exceeds uniform·total, among states of positive mass; all in float64."""
    line = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, TP)
    of_tile = tl.load(mass + line * tiles + k, mask=k < tiles, other=0.0)
    level = tl.load(uniform + line) * tl.sum(of_tile, axis=0)
    above = (tl.cumsum(of_tile, axis=0) > level) & (of_tile > 0)
    tile = tl.min(tl.where(above, k, TP), axis=0)
    last = tl.max(tl.where(of_tile > 0, k, 0), axis=0)
    tile = tl.where(tile == TP, last, tile)
    level -= tl.sum(tl.where(k < tile, of_tile, 0.0), axis=0)
    s = (tile * BS + tl.arange(0, BS)).to(tl.int64)
    inside = s < S
    value = _logits(z + line * width, s, S, width)
    value += _bias(bias, position, line // C, s, inside, stride, BIAS, BS)
    p = tl.where(inside, tl.exp(value - tl.load(lse + line)), 0.0).to(tl.float64)
    found = tl.min(tl.where((tl.cumsum(p, axis=0) > level) & (p > 0), s, S), axis=0)
    last_state = tl.max(tl.where(p > 0, s, 0), axis=0)
    tl.store(out + line, tl.where(found == S, last_state, found))


@triton.jit
def means(
    z, width, bias, position, stride, lse, weights, certain, out, C, S, BIAS: tl.constexpr, CERTAIN: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """out [P, S]: Σ_c w_c exp(z_c − lse_c) at a tile's states, or w_c at the token of which line c is certain."""
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    s = tile * BS + tl.arange(0, BS)
    inside = s < S
    b = _bias(bias, position, row, s, inside, stride, BIAS, BS)
    total = tl.zeros((BS,), dtype=tl.float32)
    for c in range(0, C):
        z_c = _logits(z + (row * C + c) * width, s, S, width)
        p = tl.exp(z_c + b - tl.load(lse + row * C + c))
        if CERTAIN:
            token = tl.load(certain + row * C + c)
            p = tl.where(token >= 0, (s == token).to(tl.float32), p)
        total += tl.load(weights + c) * p
    tl.store(out + row * S + s, total, mask=inside)
