"""Distinct n-grams: what repetition cannot hide."""

from collections.abc import Sequence

import torch
from torch import Tensor

from di4c.contracts import DataSource
from di4c.errors import SpecError
from di4c_plugins.metrics.ngrams import ngram_cells
from di4c_plugins.metrics.reference import OfTokens


class DistinctNGrams(OfTokens):
    """`distinct{n}`, of all n-grams of the samples the share of different ones (Li et al. 2016), and `repeated{n}`, the share of
    n-grams that stood earlier in their own sequence (Welleck et al. 2020), for every n of `orders`.

    Neither is good because it is high or low: they should be near the reference value, which is the training data's at the same
    sample size; `distinct` falls as the sample grows.
    """

    higher_is_better = None

    def __init__(self, *, data: DataSource, orders: Sequence[int] = (2, 4)):
        if not orders or not all(1 <= n <= data.num_positions for n in orders) or len(set(orders)) < len(orders):
            allowed = f"different numbers in 1, …, {data.num_positions} (the data's positions)"
            raise SpecError(f"metric distinct: orders is {list(orders)}; expected {allowed}")
        self.data, self.orders = data, tuple(orders)

    def of(self, x: Tensor) -> dict[str, float]:
        """{"distinct{n}", "repeated{n}"} of x [n, D]."""
        found = {}
        for n in self.orders:
            cells = ngram_cells(x, n).view(len(x), -1)
            ordered = cells.sort(dim=1).values
            found[f"distinct{n}"] = len(torch.unique(cells)) / cells.numel()
            found[f"repeated{n}"] = float((ordered[:, 1:] == ordered[:, :-1]).sum() / cells.numel())
        return found
