"""Rotary positions (Su et al. 2021) in real arithmetic, for the two ways in which networks pair channels."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from di4c.contracts import kernels_apply
from di4c.errors import SpecError

BY_KERNEL = 2**22
"""Numbers from which on the kernel turns them on a GPU. Fewer wait for the host, which issues torch's operators no slower."""


class Rotary(nn.Module):
    """Turns the k-th pair of channels of every head, at position d, by angles[d, k].

    angles: [D, head width/2] float64. pairs: channels 2k and 2k + 1 ("neighbours"), or k and k + head width/2 ("halves", as in
    published language models). The tables are float32 whatever the weights are cast to, and not part of the state dict.
    """

    tables: Tensor

    def __init__(self, angles: Tensor, heads: int, pairs: Literal["neighbours", "halves"]):
        super().__init__()
        self.heads = heads
        self.distance = 1 if pairs == "neighbours" else angles.shape[1]
        angles = torch.cat([angles, torch.zeros_like(angles[:1])])  # one more row, for tokens that are not turned
        cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
        head = [
            torch.stack([a, b], dim=2 if self.distance == 1 else 1).flatten(1) for a, b in ((cos, cos), (sin, zero))
        ]
        self.register_buffer("tables", torch.stack(head).float().repeat(1, 1, 2 * heads), persistent=False)

    def forward(self, positions: int, extra: int, like: Tensor) -> "Turns":
        """The turns of `positions` tokens, and of `extra` ones behind them that stay as they are; in like's dtype.

        Raises SpecError if there are more positions than angles.
        """
        most = self.tables.shape[1] - 1
        if positions > most:
            raise SpecError(f"backbone: a sequence of {positions} tokens, but the network was built for {most}")
        rows = self.tables[:, :positions]
        if extra:
            rows = torch.cat([rows, self.tables[:, -1:].expand(-1, extra, -1)], dim=1)
        return Turns(rows.to(like.dtype), self.heads, self.distance)

    def _apply(self, fn: Callable, recurse: bool = True) -> "Rotary":
        """As nn.Module's, but the tables keep their precision."""
        exact = self.tables
        super()._apply(fn, recurse)
        self.tables = exact.to(self.tables.device)
        return self


class Turns(NamedTuple):
    """tables: [2, D, 2·H], of every pair of channels cos at both, and sin at the first with 0 at the second; for queries, then keys."""

    tables: Tensor
    heads: int
    distance: int

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, heads, D, head width] of a projection [B, D, 3·H], the first two turned."""
        turn: Callable[..., tuple[Tensor, Tensor]] = _turn_first if torch.compiler.is_compiling() else _Turn.apply
        both, values = turn(qkv, self.tables.to(qkv.dtype), self.distance)
        queries, keys = both.chunk(2, dim=-1)
        queries, keys, values = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (queries, keys, values))
        return queries, keys, values


class _Turn(torch.autograd.Function):
    """(x, rest) → (turned x, rest) of a tensor [B, D, C + R]; tables [2, D, C].

    (a, b) → (a·cos − b·sin, b·cos + a·sin) for the pairs of channels of x, `distance` apart.

    Three passes over x as it lies in memory: a channel's partner is found by shifting x, which is a view, not by slices that have to
    be concatenated again. Inductor fuses them. On a CPU neighbours are turned by one complex product instead, a single pass to the
    same bits. The gradient is the turn the other way, into its place beside that of the rest: autograd would copy it for every shift,
    where no compiler takes the copies out.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, whole: Tensor, tables: Tensor, distance: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tables)
        ctx.distance = distance
        return _turn_first(whole, tables, distance)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, turned: Tensor, rest: Tensor) -> tuple[Tensor, None, None]:
        (tables,), width = ctx.saved_tensors, turned.shape[-1]
        whole = turned.new_empty(*turned.shape[:-1], width + rest.shape[-1])
        _turn_of(turned, ctx.distance)(turned, tables, ctx.distance, -1, out=whole[..., :width])
        whole[..., width:] = rest
        return whole, None, None


def _turn_first(whole: Tensor, tables: Tensor, distance: int) -> tuple[Tensor, Tensor]:
    """The channels that the tables are for, turned, and the others."""
    width = tables.shape[-1]
    x, rest = whole.split([width, whole.shape[-1] - width], dim=-1)
    turn: Callable[..., Tensor] = _turn if torch.compiler.is_compiling() else _turn_of(x, distance)
    return turn(x, tables, distance), rest


def _turn_of(x: Tensor, distance: int) -> Callable[..., Tensor]:
    """The turn as it is done for such a tensor."""
    if kernel_applies(x):
        from di4c_plugins.backbones import rotary_kernel  # imports Triton

        return rotary_kernel.turn
    exact = not x.is_cuda and x.dtype in (torch.float32, torch.float64)
    return _turn_neighbours if distance == 1 and exact and _in_pairs(x) else _turn


def _in_pairs(x: Tensor) -> bool:
    """Whether neighbouring channels lie in memory as the parts of complex numbers do."""
    return x.stride(-1) == 1 and not any(step % 2 for step in (x.storage_offset(), *x.stride()[:-1]))


def kernel_applies(x: Tensor) -> bool:
    """Whether the kernel turns x: many numbers on CUDA, where Triton is installed."""
    return x.numel() >= BY_KERNEL and kernels_apply(x)


def _turn(x: Tensor, tables: Tensor, distance: int, sign: int = 1, out: Tensor | None = None) -> Tensor:
    cos, sin = tables
    turned, sin = torch.mul(x, cos, out=out), sin[:, :-distance]
    _add_product(turned[..., :-distance], x[..., distance:], sin, -sign)
    _add_product(turned[..., distance:], x[..., :-distance], sin, sign)
    return turned


def _turn_neighbours(x: Tensor, tables: Tensor, distance: int, sign: int = 1, out: Tensor | None = None) -> Tensor:
    cos, sin = tables.unflatten(-1, (-1, 2))[..., 0]
    pairs, into = (None if y is None else torch.view_as_complex(y.unflatten(-1, (-1, 2))) for y in (x, out))
    return torch.view_as_real(torch.mul(pairs, torch.complex(cos, sign * sin), out=into)).flatten(-2)


def _add_product(total: Tensor, x: Tensor, sin: Tensor, sign: int) -> None:
    """total += sign·x·sin: on a GPU in one launch; elsewhere the product is rounded first, to the bits that a complex product gives."""
    if total.is_cuda or torch.compiler.is_compiling():
        total.addcmul_(x, sin, value=sign)
    else:
        total.add_(x * sin, alpha=sign)
