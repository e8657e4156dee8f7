"""The turn of queries and keys on a device, where a kernel does it, against torch's operators."""

import pytest
import torch

from di4c_plugins.backbones import rotary


@pytest.mark.parametrize("pairs", ["neighbours", "halves"])
@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float32, 2**-21), (torch.bfloat16, 2**-7), (torch.float16, 2**-10)]
)
def test_queries_keys_and_the_gradient(pairs, dtype, rounding, device, monkeypatch):
    angles = torch.rand(64, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 64
    made = rotary.Rotary(angles, 12, pairs).to(device)
    results = []
    for smallest in (0, 2**40):
        monkeypatch.setattr(rotary, "BY_KERNEL", smallest)
        g = torch.Generator().manual_seed(1)
        qkv = torch.randn(3, 64 + 1, 3 * 12 * 64, generator=g).to(device, dtype).requires_grad_()
        found = made(64, 1, qkv).split(qkv)
        weights = [torch.randn(part.shape, generator=g).to(device, dtype) for part in found]
        results.append([*found, *torch.autograd.grad(found, qkv, weights)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rounding, atol=2 * rounding)
