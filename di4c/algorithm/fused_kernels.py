"""Triton kernels of the fused readout; imported only where they are used, since Triton is optional.

A tile is BP rows (b, d) of all their M components (padded to MP = a power of two) times BS states; its logits live on chip only.
"""

import triton
import triton.language as tl

NOTHING = tl.constexpr(-1e30)
"""The logit of what is only padding; finite, so that no difference of infinities arises."""


@triton.jit
def _rows(block, P, M, BP: tl.constexpr, MP: tl.constexpr):
    """Of a tile's BP·MP lines: row p, component m, whether there is such a one, and its place p·M + m."""
    line = tl.arange(0, BP * MP)
    p, m = block * BP + line // MP, line % MP
    return p, m, (p < P) & (m < M), (p * M + m).to(tl.int64)


@triton.jit
def _log_probs(
    h, weight, bias, position, lse, p, there, place, s, P, S, H,
    bias_stride, BIAS: tl.constexpr, EXCLUDED: tl.constexpr, LOG_ZERO: tl.constexpr,
    BR: tl.constexpr, BS: tl.constexpr, BH: tl.constexpr, PRECISION: tl.constexpr,
):
    """h·Wᵀ + b − lse [BR, BS]; lse may be 0. BIAS: 0 none, 1 shared, 2 a row of it a position."""
    total = tl.zeros((BR, BS), dtype=tl.float32)
    states = s.to(tl.int64)
    for start in range(0, H, BH):
        k = start + tl.arange(0, BH)
        left = tl.load(h + place[:, None] * H + k[None, :], mask=there[:, None] & (k < H)[None, :], other=0.0)
        right = tl.load(weight + states[:, None] * H + k[None, :], mask=(s < S)[:, None] & (k < H)[None, :], other=0.0)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)
    if BIAS == 1:
        total += tl.load(bias + states, mask=s < S, other=0.0).to(tl.float32)[None, :]
    if BIAS == 2:
        at = tl.load(position + p, mask=p < P, other=0)
        each = tl.load(bias + at[:, None] * bias_stride + states[None, :], mask=(p < P)[:, None] & (s < S)[None, :], other=0.0)
        total += each.to(tl.float32)
    if EXCLUDED >= 0:
        total = tl.where((s == EXCLUDED)[None, :], total + LOG_ZERO, total)
    return tl.where((s < S)[None, :], total - lse[:, None], NOTHING)


@triton.jit
def _responsibilities(log_p, log_weight, BP: tl.constexpr, MP: tl.constexpr, BS: tl.constexpr):
    """(w_m p_m(s)/p̄(s) [BP, MP, BS], log p̄ [BP, BS]), by logarithms: p̄ may underflow."""
    weighted = tl.reshape(log_p, (BP, MP, BS)) + log_weight[None, :, None]
    largest = tl.max(weighted, axis=1)
    each = tl.exp(weighted - largest[:, None, :])
    total = tl.sum(each, axis=1)
    return each / total[:, None, :], largest + tl.log(total)


@triton.jit
def normalisers(
    h, weight, bias, position, out, P, M, S, H, bias_stride, per_split,
    BIAS: tl.constexpr, EXCLUDED: tl.constexpr, LOG_ZERO: tl.constexpr,
    BP: tl.constexpr, MP: tl.constexpr, BS: tl.constexpr, BH: tl.constexpr, PRECISION: tl.constexpr,
):
    """out [splits, P, M]: log Σ exp of the logits over the split's states."""
    BR: tl.constexpr = BP * MP
    p, m, there, place = _rows(tl.program_id(0), P, M, BP, MP)
    zero = tl.zeros((BR,), dtype=tl.float32)
    largest, total = zero + NOTHING, zero
    split = tl.program_id(1)
    for tile in range(0, per_split):
        s = (split * per_split + tile) * BS + tl.arange(0, BS)
        logits = _log_probs(
            h, weight, bias, position, zero, p, there, place, s, P, S, H,
            bias_stride, BIAS, EXCLUDED, LOG_ZERO, BR, BS, BH, PRECISION,
        )
        above = tl.maximum(largest, tl.max(logits, axis=1))
        total = total * tl.exp(largest - above) + tl.sum(tl.where((s < S)[None, :], tl.exp(logits - above[:, None]), 0.0), axis=1)
        largest = above
    value = tl.where(total > 0, largest + tl.log(tl.where(total > 0, total, 1.0)), NOTHING)
    tl.store(out + split * P * M + place, value, mask=there)


@triton.jit
def mean_sums(
    h, weight, bias, position, lse, log_weights, q, cross, pulled, P, M, S, H, J, bias_stride, per_split,
    BIAS: tl.constexpr, EXCLUDED: tl.constexpr, LOG_ZERO: tl.constexpr,
    BP: tl.constexpr, MP: tl.constexpr, BS: tl.constexpr, BH: tl.constexpr, PRECISION: tl.constexpr,
):
    """Over the split's states, for each of J marginals q [J, P, S]: cross [splits, J, P] += Σ_s q(s) log p̄(s), and
    pulled [splits, J, P, M] += Σ_s q(s) w_m p_m(s)/p̄(s). Both start at 0.
    """
    BR: tl.constexpr = BP * MP
    p, m, there, place = _rows(tl.program_id(0), P, M, BP, MP)
    split = tl.program_id(1)
    row, component = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, MP)
    log_weight = tl.load(log_weights + component, mask=component < M, other=NOTHING)
    normaliser = tl.load(lse + place, mask=there, other=0.0)
    for tile in range(0, per_split):
        s = (split * per_split + tile) * BS + tl.arange(0, BS)
        log_p = _log_probs(
            h, weight, bias, position, normaliser, p, there, place, s, P, S, H,
            bias_stride, BIAS, EXCLUDED, LOG_ZERO, BR, BS, BH, PRECISION,
        )
        share, log_mean = _responsibilities(log_p, log_weight, BP, MP, BS)
        within = (row < P)[:, None] & (s < S)[None, :]
        for j in range(0, J):
            marginal = tl.load(q + (j * P + row)[:, None].to(tl.int64) * S + s[None, :], mask=within, other=0.0)
            at = (split * J + j) * P + row
            tl.atomic_add(cross + at, tl.sum(marginal * log_mean, axis=1), mask=row < P)
            inside = (row < P)[:, None] & (component < M)[None, :]
            tl.atomic_add(pulled + at[:, None] * M + component[None, :], tl.sum(marginal[:, None, :] * share, axis=2), mask=inside)


@triton.jit
def gradients(
    h, weight, bias, position, lse, log_weights, sums, pull, dh, dweight, dbias, P, M, S, H, bias_stride,
    HAS_PULL: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, DB: tl.constexpr,
    BIAS: tl.constexpr, EXCLUDED: tl.constexpr, LOG_ZERO: tl.constexpr,
    BP: tl.constexpr, MP: tl.constexpr, BS: tl.constexpr, BH: tl.constexpr, PRECISION: tl.constexpr,
):
    """Adds to dh [P, M, H], dweight [S, H], dbias what the logits' gradient −pull(s) w_m p_m(s)/p̄(s) − p_m(s)·sums_m gives."""
    BR: tl.constexpr = BP * MP
    p, m, there, place = _rows(tl.program_id(0), P, M, BP, MP)
    s = tl.program_id(1) * BS + tl.arange(0, BS)
    normaliser = tl.load(lse + place, mask=there, other=0.0)
    log_p = _log_probs(
        h, weight, bias, position, normaliser, p, there, place, s, P, S, H,
        bias_stride, BIAS, EXCLUDED, LOG_ZERO, BR, BS, BH, PRECISION,
    )
    gradient = -tl.exp(log_p) * tl.load(sums + place, mask=there, other=0.0)[:, None]
    row = tl.program_id(0) * BP + tl.arange(0, BP)
    within = (row < P)[:, None] & (s < S)[None, :]
    if HAS_PULL:
        component = tl.arange(0, MP)
        log_weight = tl.load(log_weights + component, mask=component < M, other=NOTHING)
        share, _ = _responsibilities(log_p, log_weight, BP, MP, BS)
        pulling = tl.load(pull + row[:, None].to(tl.int64) * S + s[None, :], mask=within, other=0.0)
        gradient -= tl.reshape(share * pulling[:, None, :], (BR, BS))
    gradient = tl.where(there[:, None] & (s < S)[None, :], gradient, 0.0)
    states = s.to(tl.int64)
    if DB:
        by_row = tl.sum(tl.reshape(gradient, (BP, MP, BS)), axis=1)
        if BIAS == 1:
            tl.atomic_add(dbias + states, tl.sum(by_row, axis=0), mask=s < S)
        else:
            at = tl.load(position + row, mask=row < P, other=0)
            tl.atomic_add(dbias + at[:, None] * bias_stride + states[None, :], by_row, mask=within)
    narrow = gradient.to(weight.dtype.element_ty)
    for start in range(0, H, BH):
        k = start + tl.arange(0, BH)
        if DH:
            w = tl.load(weight + states[:, None] * H + k[None, :], mask=(s < S)[:, None] & (k < H)[None, :], other=0.0)
            part = tl.dot(narrow, w, input_precision=PRECISION)
            tl.atomic_add(dh + place[:, None] * H + k[None, :], part, mask=there[:, None] & (k < H)[None, :])
        if DW:
            x = tl.load(h + place[:, None] * H + k[None, :], mask=there[:, None] & (k < H)[None, :], other=0.0)
            part = tl.dot(tl.trans(narrow), x, input_precision=PRECISION)
            tl.atomic_add(dweight + states[:, None] * H + k[None, :], part, mask=(s < S)[:, None] & (k < H)[None, :])
