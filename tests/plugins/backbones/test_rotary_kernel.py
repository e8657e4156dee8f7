"""The kernel turns as torch's operators do; by Triton's interpreter."""

import importlib.util

import pytest
import torch
from torch import Tensor

from di4c_plugins.backbones import rotary

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def turned(pairs: str, heads: int, half: int, extra: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values of a projection, and the projection's gradient."""
    g = torch.Generator().manual_seed(0)
    made = rotary.Rotary(torch.rand(5, half, generator=g, dtype=torch.float64) * 6, heads, pairs)
    qkv = torch.randn(3, 5 + extra, 6 * heads * half, generator=g).to(dtype).requires_grad_()
    found = made(5, extra, qkv).split(qkv)
    weights = [torch.randn(part.shape, generator=g).to(dtype) for part in found]
    return [*found, torch.autograd.grad(found, qkv, weights)[0]]


@pytest.mark.parametrize("pairs", ["neighbours", "halves"])
@pytest.mark.parametrize(("heads", "half", "extra"), [(2, 4, 0), (3, 5, 2), (3, 96, 1)])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 2**-22), (torch.bfloat16, 2**-7)])
def test_forward_and_backward(pairs, heads, half, extra, dtype, rounding, monkeypatch):
    expected = turned(pairs, heads, half, extra, dtype)
    monkeypatch.setattr(rotary, "kernel_applies", lambda x: True)
    for ours, theirs in zip(turned(pairs, heads, half, extra, dtype), expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=rounding, atol=2 * rounding)


def test_rows_in_any_layout(monkeypatch):
    from di4c_plugins.backbones import rotary_kernel

    tables = rotary.Rotary(torch.rand(5, 4, dtype=torch.float64), 1, "halves")(5, 0, torch.zeros(1)).tables
    x = torch.randn(16, 5, 3).permute(2, 1, 0)
    for given in (x, torch.ones(1, 1, 1).expand(3, 5, 16), x[:0]):
        torch.testing.assert_close(rotary_kernel.turn(given, tables, 4), rotary._turn(given, tables, 4))
