"""Text statistics: distances between samples and held-out text in n-grams, and in pairs of tokens at a distance."""

from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import Tensor

from di4c.contracts import DataSource
from di4c.errors import SpecError
from di4c_plugins.metrics.reference import OfTokens, reference

FACTOR = 0x9E3779B97F4A7C15 - 2**64  # an odd 64-bit number: hashes of n-grams by wrapped multiplication


class Frequencies(OfTokens):
    """Total variation distances between tables of frequencies: the held-out text's commonest cells and the rest.

    All are biased upwards by the finite sample; the reference value (training text at the same sample size) shows by how much.
    """

    higher_is_better = False

    def __init__(self, *, data: DataSource, cells: int, max_references: int):
        if cells < 1:
            raise SpecError(f"metric of frequencies: cells is {cells}; at least 1")
        self.data, self.cells, self.max_references = data, cells, max_references

    def tables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Name → function from sequences [n, D] to the cell (int64) of every place counted."""
        raise NotImplementedError

    def of(self, x: Tensor) -> dict[str, float]:
        """½ Σ_c |P_samples(c) − P_data(c)| of every table: {name: value in [0, 1]}."""
        found = {}
        for name, cell_of in self.tables().items():
            cells, wanted = self._held_out[name]
            found[name] = float((shares(cell_of(x), cells) - wanted).abs().sum() / 2)
        return found

    @cached_property
    def _held_out(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For every table its commonest cells, sorted, and their shares with the rest's last."""
        x = reference(self.data, "test", self.max_references)
        found = {}
        for name, cell_of in self.tables().items():
            values = cell_of(x)
            cells, counts = values.unique(return_counts=True)
            kept = cells[counts.argsort(descending=True, stable=True)[: self.cells]].sort().values
            found[name] = (kept, shares(values, kept))
        return found


class NGrams(Frequencies):
    """`ngram{n}_tv` for n = 1, …, `order`, and their mean `ngram_tv`, n-grams at any place of a sequence."""

    def __init__(self, *, data: DataSource, order: int = 4, cells: int = 2000, max_references: int = 10_000):
        if not 1 <= order <= data.num_positions:
            raise SpecError(
                f"metric ngrams: order is {order}; it lies in 1, …, {data.num_positions} (the data's positions)"
            )
        super().__init__(data=data, cells=cells, max_references=max_references)
        self.order = order

    def tables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {f"ngram{n}_tv": partial(ngram_cells, n=n) for n in range(1, self.order + 1)}

    def of(self, x: Tensor) -> dict[str, float]:
        each = super().of(x)
        return {"ngram_tv": sum(each.values()) / len(each), **each}


class LaggedPairs(Frequencies):
    """`lagged_pair_tv`: pairs (x^d, x^{d+k}) at any place d, averaged over the lags k = 1, 2, 4, … up to `longest`.

    The pairwise error of text, whose positions are alike: what a product model gets wrong even when its marginals are
    right.
    """

    def __init__(self, *, data: DataSource, longest: int = 16, cells: int = 2000, max_references: int = 10_000):
        if longest < 1 or data.num_positions < 2:
            raise SpecError(
                f"metric lagged-pairs: longest is {longest}, and the data have {data.num_positions} positions; at least 1 and 2 are needed"
            )
        super().__init__(data=data, cells=cells, max_references=max_references)
        self.lags = [2**k for k in range(longest.bit_length()) if 2**k <= longest and 2**k < data.num_positions]

    def tables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {f"lag{k}": partial(pair_cells, lag=k, num_states=self.data.num_states) for k in self.lags}

    def of(self, x: Tensor) -> dict[str, float]:
        each = super().of(x)
        return {"lagged_pair_tv": sum(each.values()) / len(each)}


def ngram_cells(x: Tensor, n: int) -> Tensor:
    """A number for the n-gram at every place, hashed to 64 bits: int64 [n_sequences · (D − n + 1)]."""
    windows = x.unfold(1, n, 1)
    value = torch.zeros(windows.shape[:2], dtype=torch.int64)
    for i in range(n):
        value = (value + windows[..., i] + 1) * FACTOR
        value = value ^ (value >> 29)
    return value.flatten()


def pair_cells(x: Tensor, lag: int, num_states: int) -> Tensor:
    """a·S + b for every pair a = x^d, b = x^{d+lag}: int64."""
    return (x[:, :-lag] * num_states + x[:, lag:]).flatten()


def shares(values: Tensor, cells: Tensor) -> Tensor:
    """The share of each of the sorted `cells` among the values, and of all others last: [C + 1] float64."""
    place = torch.searchsorted(cells, values).clamp_max(len(cells) - 1)
    place = torch.where(cells[place] == values, place, len(cells))
    return torch.bincount(place, minlength=len(cells) + 1).double() / len(values)
