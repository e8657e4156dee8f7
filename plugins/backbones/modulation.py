"""Adaptive layer norm (Peebles & Xie 2023): a block's shifts, scales and gates, linear in the conditioning.

A conditioning [1, C] is that of all examples. Each shift, scale and gate is then a vector [H], which an operator takes beside its
weights, so that no pass over the activations is made for it. Those of a conditioning [B, C] are [B, 1, H].
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from di4c.contracts import Calls

GATED_WEIGHTS = 4
"""From how many activations an element of the weight on, weights are multiplied by a gate that all examples share, not activations.

The product and its gradients are three passes over the weight, and some small operators more.
"""


class Modulation(NamedTuple):
    """h + gate·f(norm(h)·scale + shift): each [H] or [B, 1, H]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def modulations(values: Tensor, width: int, closed: bool = True, weights: Tensor | None = None) -> list[Modulation]:
    """The n of values [1 or B, n·3·H], in which a scale of 1 is 0, and, if not `closed`, a gate of 1 is 0 too.

    weights: [n, H] of the norms, which values [1, n·3·H] then scale.
    """
    if len(values) == 1:
        shift, scale, gate = values.view(-1, 3, width).unbind(1)
        scale = 1 + scale if weights is None else weights * (1 + scale)
        parts = zip(shift.unbind(), scale.unbind(), (gate if closed else 1 + gate).unbind(), strict=True)
        return [Modulation(*part) for part in parts]
    split = values[:, None].split(width, dim=-1)
    groups = zip(split[::3], split[1::3], split[2::3], strict=True)
    return [Modulation(shift, 1 + scale, gate if closed else 1 + gate) for shift, scale, gate in groups]


def shift_and_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Those of values [1 or B, 2·H], in which a scale of 1 is 0."""
    shift, scale = (values[0] if len(values) == 1 else values[:, None]).chunk(2, dim=-1)
    return shift, 1 + scale


def of_all(layers: Sequence[nn.Module], norms: Sequence[nn.Module], c: Tensor, width: int) -> list[Modulation]:
    """Of all norms, from the linear layers of their blocks, for a conditioning [1, C]: few operators; scales hold the norms' weights.

    Empty where the modules have to be called, each by its block.
    """
    if len(c) > 1 or not layers or not all(map(is_bare, [*layers, *norms])):
        return []
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return modulations(F.linear(c, weight, bias), width, weights=torch.stack([norm.weight for norm in norms]))


class ModulatedLayerNorm(nn.LayerNorm):
    """Layer norm without a bias, scaled and shifted."""

    def __init__(self, width: int, elementwise_affine: bool = True):
        super().__init__(width, elementwise_affine=elementwise_affine, bias=False)

    def forward(self, h: Tensor, shift: Tensor, scale: Tensor, weighted: bool = False) -> Tensor:  # type: ignore[override]
        """h [B, D, H] → norm(h)·scale + shift. weighted: the scale, of all examples, holds the norm's weight."""
        if scale.dim() == 1:
            scale = scale if weighted or self.weight is None else self.weight * scale
            scale, shift = scale.to(h), shift.to(h)  # autocast may have narrowed them
            return F.layer_norm(h, self.normalized_shape, scale, shift, self.eps)
        return plus_product(shift, super().forward(h), scale)


def add_gated(h: Tensor, gate: Tensor, x: Tensor, layer: nn.Module, dropout: nn.Module) -> Tensor:
    """h + gate·dropout(layer(x)) for a linear layer, or what stands in its place: [B, D, H]."""
    if gate.dim() == 1 and is_bare(layer) and h.numel() >= GATED_WEIGHTS * layer.weight.numel():
        bias = None if layer.bias is None else gate * layer.bias
        return h + dropout(F.linear(x, gate[:, None] * layer.weight, bias))
    return plus_product(h, gate, dropout(layer(x)))


def plus_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """total + a·b. On a GPU the gradient of addcmul, which multiplies by its factor 1 as well, costs more than the sum's own pass."""
    return total + a * b if total.is_cuda and torch.is_grad_enabled() else torch.addcmul(total, a, b)


def is_bare(module: nn.Module) -> bool:
    """Whether its weights may be used without a call: a linear layer of torch's own, or a norm, without adapters, hooks or a forward of its own.

    ZeRO-3 gathers weights in hooks. A compiler takes the calls as they are, and fuses what surrounds them.
    """
    plain = type(module) in (nn.Linear, ModulatedLayerNorm) and not torch.compiler.is_compiling()
    return plain and not Calls([module])
