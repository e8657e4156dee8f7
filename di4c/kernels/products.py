"""The library's products of an output head: in float32 at least, whatever the dtype of their factors."""

import torch
from torch import Tensor

STATES_AT_A_TIME = 4096
"""Lines of a narrow W that are widened at once where the library has no product of narrow factors with a float32 result."""


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """That of autocast on the device of x, None where it is off."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def bias_in(dtype: torch.dtype, bias: Tensor | None) -> Tensor | None:
    """As autocast takes it: a bias [S] belongs to the product; one of each position [D, S] is added later, as it is."""
    return bias if bias is None or bias.dim() == 2 else bias.to(dtype)


def product(h: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """h·Wᵀ + b: [R, S] in float32 at least, from h [R, H], W [S, H] of one dtype and b [S] or None; summed in float32 at least."""
    if h.dtype in (torch.float32, torch.float64):
        return torch.mm(h, weight.T, out=out) if bias is None else torch.addmm(bias, h, weight.T, out=out)
    if h.is_cuda:
        found = torch.mm(h, weight.T, out_dtype=torch.float32)
        return found if bias is None else found.add_(bias)
    out = h.new_empty(len(h), len(weight), dtype=torch.float32) if out is None else out
    in_float32 = h.float()
    for some, of in zip(out.split(STATES_AT_A_TIME, 1), weight.split(STATES_AT_A_TIME), strict=True):
        torch.mm(in_float32, of.float().T, out=some)
    return out if bias is None else out.add_(bias)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += leftᵀ·right: [S, H] from [R, S] and [R, H]; total is float32 at least, narrow factors are summed in it."""
    if left.dtype == total.dtype == right.dtype:
        total.addmm_(left.T, right)
    elif left.is_cuda:
        torch.addmm(total, left.T.to(right.dtype), right, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(left.to(total.dtype).T, right.to(total.dtype))
