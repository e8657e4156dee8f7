"""What the row functions take and return."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

LOG_ZERO = -1e6
"""The logarithm of a probability that is zero; finite, so that 0 · LOG_ZERO = 0 and gradients stay finite."""

ALIGNED = 64
"""States. Rows that begin at multiples of it are read and written by 16 bytes a thread, and products of such widths are fast on a GPU."""


def aligned_width(states: int) -> int:
    """S, or the next multiple of ALIGNED."""
    return -(-states // ALIGNED) * ALIGNED


def empty_rows(rows: int, states: int, dtype: torch.dtype, device: torch.device, width: int | None = None) -> Tensor:
    """Room for `rows` distributions: [rows, S], one begins `width` numbers after the other, by default `aligned_width`.

    What lies behind the S states is zero: products go up to the width.
    """
    room = torch.empty(rows, width or aligned_width(states), dtype=dtype, device=device)
    room[:, states:] = 0
    return room[:, :states]


def aligned_lines(weight: Tensor, states: int) -> Tensor:
    """W [≥ S, H] with `aligned_width` lines, those behind S of zeros where it has no others; row functions ignore what they give.

    Measured on an H200, bf16, H = 768, 2560 rows: h·Wᵀ with 50258 lines runs at 194 TFLOP/s, with 50304 at 423.
    """
    missing = aligned_width(states) - len(weight)
    return functional.pad(weight, (0, 0, 0, missing)) if missing > 0 else weight[: aligned_width(states)]


def with_margin(rows: Tensor) -> Tensor:
    """Rows [R, S] as `empty_rows` makes them, with what lies behind the S states: [R, width]; others as they are."""
    width = rows.stride(0) if len(rows) > 1 else rows.shape[1]
    return rows.as_strided((len(rows), width), (width, 1))


@dataclass(frozen=True)
class Logits:
    """Logits of P rows and M components: z [P, M, S] float32 or float64, and what is still to be added to them.

    bias: None, [≥ S] for all rows, or [≥ D, ≥ S] of which row p has line position[p].
    """

    z: Tensor
    bias: Tensor | None = None
    position: Tensor | None = None


@dataclass(frozen=True)
class Against:
    """What P rows are scored against: log-weights [M], tokens x [P, N] or None, the marginals q [P, S] of J targets, and which
    divergences are wanted.

    row: None, or [Q] int64 where several lines of tokens share a row: tokens are then [Q, N], and those of line k are scored at
    row[k]; so `chosen` has Q lines in RowValues.
    """

    log_weights: Tensor
    tokens: Tensor | None = None
    q: list[Tensor] = field(default_factory=list)
    kl: bool = False
    componentwise: bool = False
    row: Tensor | None = None

    def of_lines(self, values: Tensor) -> Tensor:
        """Values [P, …] of rows as those of the lines of tokens."""
        return values if self.row is None else values[self.row]


@dataclass(frozen=True)
class RowValues:
    """chosen [P, M, N], kl and componentwise [J, P], each None where it is not wanted; and what the gradient needs again. Or the
    incoming gradients of the three, with what was kept.

    With ℓ_m the log-softmax of a row's logits z_m, p_m = exp ℓ_m and p̄ = Σ_m w_m p_m:

        chosen[m, n]     ℓ_m(x_n)
        kl[j]            Σ_s q_j(s) log q_j(s)/p̄(s)
        componentwise[j] Σ_m w_m Σ_s q_j(s) log q_j(s)/p_m(s)

    For incoming gradients g the gradient with respect to z_m is A_m − p_m Σ_s A_m(s), where

        A_m(s) = Σ_n g_chosen[m, n] [s = x_n] − Σ_j g_kl[j] q_j(s) w_m p_m(s)/p̄(s) − Σ_j g_componentwise[j] w_m q_j(s).
    """

    chosen: Tensor | None = None
    kl: Tensor | None = None
    componentwise: Tensor | None = None
    kept: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Lines:
    """The C distributions of each of P rows that are drawn from: uniform [P, C] float64 in [0, 1), weights [C] of their mean.

    certain: None, or [P, C] int64: the token of which a distribution is certain whatever its logits, −1 where it is not.
    """

    weights: Tensor
    uniform: Tensor | None = None
    certain: Tensor | None = None
