"""The real data that metrics compare with, in memory."""

import torch
from torch import Tensor

from di4c.contracts import DataSource, Draws


def reference(data: DataSource, split: str, at_most: int) -> Tensor:
    """Tokens of the split: [n, D] int64 on the CPU; evenly spaced examples if there are more than `at_most`."""
    examples = data.split(split)
    step = max(len(examples) / at_most, 1.0)
    indices = (torch.arange(min(len(examples), at_most)) * step).long()
    return examples.batch(indices).x_0.cpu()


def subset(x: Tensor, num: int, draws: Draws) -> Tensor:
    """`num` rows of x [n, D] without replacement; all of them where n ≤ num."""
    if len(x) <= num:
        return x
    return x[draws.rows(0, 1).permutation(len(x))[0, :num].cpu()]
