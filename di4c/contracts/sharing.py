"""Which examples have equal inputs."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sharing:
    """Which of G distinct inputs each of B examples has, so that what depends on the input alone is computed once.

    of: [B] int64, the number of an example's input. counts: how many examples have each input, G numbers on the host.
    most: the largest G of all ranks, from which numbers of calls follow (ZeRO-3); no rank's G is larger.
    """

    of: Tensor
    counts: tuple[int, ...]
    most: int

    @cached_property
    def order(self) -> Tensor:
        """The examples sorted by their input, in their own order where it is equal: [B] int64."""
        return self.of.argsort(stable=True)

    @cached_property
    def number(self) -> Tensor:
        """The counts: [G] int64, on the device."""
        return torch.tensor(self.counts, device=self.of.device)

    @cached_property
    def start(self) -> Tensor:
        """Where an input's examples begin in `order`: [G] int64."""
        return self.number.cumsum(0) - self.number

    @cached_property
    def first(self) -> Tensor:
        """The first example of each input: [G] int64."""
        return self.order[self.start]
