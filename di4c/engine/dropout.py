"""Dropout whose masks belong to examples, so that ranks, micro-batches and resumption do not change them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Examples:
    """The global indices first … first + count − 1 of the examples that the network is working on."""

    first: int = 0
    count: int = 0


class ExampleDropout(nn.Dropout):
    """Dropout of x [B·n, …] (b major) with masks that depend on the call and the example's global index alone.

    The call's key is drawn from torch's generator, which activation checkpointing restores, so that a recomputed pass
    repeats its mask. Tensors that are not laid out by example get ordinary masks.
    """

    def __init__(self, p: float, examples: Examples):
        super().__init__(p)
        self.examples = examples

    def forward(self, x: Tensor) -> Tensor:
        count = self.examples.count
        if not self.training or self.p == 0.0 or not count or len(x) % count:
            return super().forward(x)
        key = int(torch.randint(2**31, ()))
        keep = example_mask(self.examples, x.numel() // count, self.p, key, x.device).view(x.shape)
        return x * keep / (1 - self.p) if self.p < 1 else torch.zeros_like(x)


def example_mask(examples: Examples, size: int, p: float, key: int, device: torch.device) -> Tensor:
    """Which of `size` elements an example stay, each with probability 1 − p: bool [B, size], by a 32-bit hash."""
    index = torch.arange(examples.first, examples.first + examples.count, device=device)
    rows = _mix(_mix(_wrapped(index)) ^ _wrapped(torch.tensor(key, device=device)) ^ _wrapped(index >> 32))
    elements = _wrapped(torch.arange(size, device=device) * 0x9E3779B1)
    return _mix(rows[:, None] ^ elements) >= round(p * 2**32) - 2**31


def insert_example_dropout(module: nn.Module) -> Examples:
    """Replaces every nn.Dropout below `module`; what is returned is to be kept at the current examples."""
    examples = Examples()
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, ExampleDropout(child.p, examples).train(child.training))
    return examples


def _wrapped(x: Tensor) -> Tensor:
    """int64 → int32 modulo 2³²."""
    return ((x + 2**31) % 2**32 - 2**31).int()


def _mix(x: Tensor) -> Tensor:
    """A bijection of int32 whose output bits each depend on all input bits (the lowbias32 constants of C. Wellons)."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)
