"""Diversity of samples: the guard beside every quality metric."""

import torch
from torch import Tensor

from di4c.contracts import DataSource
from di4c_plugins.metrics.reference import OfTokens


class Entropy(OfTokens):
    """`position_entropy_nats`, the mean over positions of the samples' marginal entropy, and `unique_fraction`.

    Neither is good because it is high: they should be near the reference value, which is the data's own. A model that has collapsed
    onto few samples falls below it. The entropy is the plug-in estimate, biased downwards by about (S − 1)/2n.
    """

    higher_is_better = None

    def __init__(self, *, data: DataSource):
        self.data = data

    def of(self, x: Tensor) -> dict[str, float]:
        return {
            "position_entropy_nats": position_entropy(x, self.data.num_states),
            "unique_fraction": len(torch.unique(x, dim=0)) / len(x),
        }


def position_entropy(x: Tensor, num_states: int) -> float:
    """Mean over positions of −Σ_s P(x^d = s) log P(x^d = s) with the frequencies in x [n, D], nats."""
    n, positions = x.shape
    cell = torch.arange(positions, device=x.device) * num_states + x
    _, counts = torch.unique(cell, return_counts=True)
    p = counts.double() / n
    return float(-(p * p.log()).sum() / positions)
