"""Precision and recall of samples: how many lie among real data, and how many real data lie among them."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from di4c.contracts.extending import extending
from di4c.errors import SpecError
from di4c_plugins.metrics.features import OfFeatures
from di4c_plugins.metrics.reference import evenly, reference


class PrecisionRecall(OfFeatures):
    """`precision` and `recall` in a space of features (Kynkäänniemi et al. 2019).

    A set's support is made of balls about its points, each of them as wide as the distance to the k-th nearest other point.
    Precision is the share of samples in the support of held-out data: do samples look real? Recall is the share of held-out
    data in the support of the samples: is all shown that real data show? Both sets have equally many points, since a larger
    one has a larger support: the number of held-out examples (at most `max_references`) or of samples, whichever is less.

    features, weights, dimensions: as in `frechet`.
    neighbours: k.
    """

    higher_is_better = True

    called = "precision-recall"

    @extending(OfFeatures)
    def __init__(self, *, neighbours: int = 3, **of_features: Any):
        super().__init__(**of_features)
        if neighbours < 1:
            raise SpecError(f"precision-recall: neighbours is {neighbours}; at least 1")
        self.neighbours = neighbours

    def of(self, x: Tensor) -> dict[str, float]:
        """The figures of samples x [n, D]. SpecError for too few of them."""
        count = min(len(x), len(self._held_out))
        if count <= self.neighbours:
            raise SpecError(f"precision-recall: {count} samples; more than neighbours ({self.neighbours}) are needed")
        real = self._held_out[evenly(len(self._held_out), count)]
        fake = self._map(x[evenly(len(x), count)]).double()
        return {"precision": covered(fake, real, self.neighbours), "recall": covered(real, fake, self.neighbours)}

    @cached_property
    def _held_out(self) -> Tensor:
        return self._map(reference(self.data, "test", self.max_references)).double()


def covered(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """The share of points [n, F] that lie in the ball of one of the centres [m, F], each as wide as its k-th neighbour."""
    radius = torch.cat([torch.cdist(part, centres).kthvalue(neighbours + 1).values for part in centres.split(1000)])
    inside = [(torch.cdist(part, centres) <= radius).any(1) for part in points.split(1000)]
    return float(torch.cat(inside).double().mean())
