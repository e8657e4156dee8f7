"""The real data that metrics compare with, in memory."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from di4c.contracts import DataSource, Draws, Generation, Metric
from di4c.errors import SpecError


class OfTokens(Metric):
    """Base of metrics that look at tokens alone: a reference value is the same figure of as many training examples.

    Those are drawn from `max_references` examples, if more than are asked for.
    """

    data: Any  # a DataSource, of which some ask more than its contract has
    max_references = 0

    @abstractmethod
    def of(self, x: Tensor) -> dict[str, float]:
        """The figures of tokens x [n, D], on the CPU."""

    def __call__(self, generation: Generation) -> dict[str, float]:
        return self.of(generation.x_0.cpu())

    def reference_values(self, num_samples: int, draws: Draws) -> dict[str, float]:
        train = reference(self.data, "train", max(num_samples, self.max_references))
        return self.of(subset(train, num_samples, draws))


def reference(data: DataSource, split: str, at_most: int) -> Tensor:
    """Tokens of the split: [n, D] int64 on the CPU; evenly spaced examples if there are more than `at_most`, at least 1."""
    if at_most < 1:
        raise SpecError(f"metrics: max_references is {at_most}; at least 1 example is needed to compare with")
    examples = data.split(split)
    return examples.batch(evenly(len(examples), at_most)).x_0.cpu()


def evenly(number: int, at_most: int) -> Tensor:
    """`at_most` evenly spaced indices of so many, or all of them: int64."""
    count = min(number, at_most)
    return (torch.arange(count) * (number / max(count, 1))).long()


def subset(x: Tensor, num: int, draws: Draws) -> Tensor:
    """`num` rows of x [n, D] without replacement; all of them where n ≤ num."""
    if len(x) <= num:
        return x
    return x[draws.rows(0, 1).permutation(len(x))[0, :num].cpu()]
