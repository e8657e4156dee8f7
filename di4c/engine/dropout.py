"""Dropout whose masks belong to examples, so that ranks, micro-batches and resumption do not change them."""

import hashlib
import math

import torch
from torch import Tensor, nn


class Examples:
    """The global indices first … first + count − 1 of the examples that the network is working on."""

    def __init__(self, first: int = 0, count: int = 0):
        self.index, self.count = torch.tensor(first, device="cpu"), count

    @property
    def first(self) -> int:
        """The first index, which a tensor holds: torch.compile would compile anew for every number."""
        return int(self.index)

    @first.setter
    def first(self, first: int) -> None:
        self.index.fill_(first)


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
        key = torch.randint(2**31, (), device="cpu")
        keep = drawn_mask(key, self.examples.index, count, list(x.shape), self.p, x.device)
        return x * keep.to(x.dtype).div_(1 - self.p) if self.p < 1 else torch.zeros_like(x)


@torch.library.custom_op("di4c::drawn_mask", mutates_args=())
def drawn_mask(key: Tensor, first: Tensor, count: int, shape: list[int], p: float, device: torch.device) -> Tensor:
    """`example_mask` in x's shape [count·n, …]: one operator, which torch.compile takes into its graph and may run again."""
    return example_mask(Examples(int(first), count), math.prod(shape) // count, p, int(key), device).view(shape)


@drawn_mask.register_fake
def _(key: Tensor, first: Tensor, count: int, shape: list[int], p: float, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=torch.bool, device=device)


def example_mask(examples: Examples, size: int, p: float, key: int, device: torch.device) -> Tensor:
    """Which of `size` elements an example stay, each with probability 1 − p to 16 bits: bool [B, size].

    Four elements share a number of 64 bits, which on a CPU is faster than a Bernoulli draw for each.
    """
    generator = torch.Generator(device)
    bits = torch.empty(examples.count, -(-size // 4), dtype=torch.int64, device=device)
    for index, row in enumerate(bits, start=examples.first):
        row.random_(-(2**63), None, generator=generator.manual_seed(_seed(key, index)))
    return bits.view(torch.int16)[:, :size] >= min(round(p * 2**16) - 2**15, 2**15 - 1)


def insert_example_dropout(module: nn.Module) -> Examples:
    """Replaces every nn.Dropout below `module`; what is returned is to be kept at the current examples."""
    examples = Examples()
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, ExampleDropout(child.p, examples).train(child.training))
    return examples


def _seed(key: int, index: int) -> int:
    """An independent seed for every pair: 64 bits, of which torch's generator on a CPU takes 32."""
    return int.from_bytes(hashlib.blake2b(repr((key, index)).encode(), digest_size=8).digest(), "little", signed=True)
