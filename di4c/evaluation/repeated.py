"""Gradients under repeated draws, and how far they spread."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def gradients(
    loss: Callable[[int], Tensor], parameters: Iterable[Tensor], repeats: int, *, retain_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """(losses [R], gradients [R, P]) of loss(0), …, loss(R − 1): scalars that differ by their draws, or by example.

    retain_graph: they share a graph.
    """
    parameters = [p for p in parameters if p.requires_grad]
    losses, found = [], []
    for k in range(repeats):
        value = loss(k)
        parts = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=retain_graph)
        losses.append(value.detach())
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]
        found.append(torch.cat([g.flatten() for g in filled]))
    return torch.stack(losses), torch.stack(found)


def standard_deviation(gradients: Tensor) -> float:
    """sqrt( Σ_p Var g_p ) of gradients [R, P]."""
    return math.sqrt(float(gradients.var(0).sum()))
