"""Recomputed blocks give the same features and gradients, dropout included."""

import pytest
import torch

from di4c.contracts import Context
from di4c_plugins.backbones.dit import DiT


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("start", [0, 1])
def test_recomputing_changes_nothing(dropout, start):
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = DiT(5, 7, width=16, depth=3, heads=2, dropout=dropout, recompute=recompute).train()
        tokens = torch.randn(4, 1, 16)
        h = net(torch.arange(10).view(2, 5) % 7, torch.rand(2), None, Context(2, tokens=tokens, start=start))
        h.square().sum().backward()
        found.append([h.detach(), *(p.grad for p in net.parameters() if p.grad is not None)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
