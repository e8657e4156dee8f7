"""How far the dependence between two positions is from the data's: what a product model cannot express."""

from functools import cached_property

import torch
from torch import Tensor

from di4c.contracts import DataSource
from di4c.errors import SpecError
from di4c_plugins.metrics.reference import OfTokens, evenly, reference


class Pairwise(OfTokens):
    """Errors of all pairs of positions against held-out data: `covariance_error` and `pair_tv`.

    covariance_error: mean over pairs d < e of |cov_samples(x^d, x^e) − cov_data(x^d, x^e)|, in squared states (the states
        taken as numbers, so it says something for grey levels only; `covariance: false` leaves it out for codes and words).
    pair_tv: mean over pairs of the total variation distance ½ Σ_ab |P_samples(a, b) − P_data(a, b)| of the tables of
        x^d and x^e, the states grouped into `levels` equal ranges.
    Both are biased upwards by the finite sample; the reference value shows by how much. Sequences longer than `max_positions` are
    measured on that many evenly spaced positions; at most `max_references` held-out examples are used.
    """

    higher_is_better = False

    def __init__(
        self,
        *,
        data: DataSource,
        levels: int = 4,
        covariance: bool = True,
        max_positions: int = 256,
        max_references: int = 10_000,
    ):
        if min(data.num_positions, max_positions, levels) < 2:
            raise SpecError(
                f"metric pairwise: {data.num_positions} positions, max_positions {max_positions}, levels {levels}; each is at least 2"
            )
        self.data, self.covariance = data, covariance
        self.levels = min(levels, data.num_states)
        self.max_references = max_references
        self.positions = evenly(data.num_positions, max_positions)

    def of(self, x: Tensor) -> dict[str, float]:
        """{"covariance_error" if it is measured, "pair_tv"} of x [n, D]."""
        covariance, table = self._statistics(x)
        covariance_0, table_0 = self._held_out
        count = len(self.positions)
        upper = torch.triu(torch.ones(count, count, dtype=torch.bool), diagonal=1)
        distance = (table - table_0).abs_().view(count, self.levels, count, self.levels).sum((1, 3)) / 2
        error = float((covariance - covariance_0).abs()[upper].mean())
        return ({"covariance_error": error} if self.covariance else {}) | {"pair_tv": float(distance[upper].mean())}

    @cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        return self._statistics(reference(self.data, "test", self.max_references))

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances [D, D] float64 and pair tables [D·levels, D·levels] float32 of x [n, D]."""
        x = x[:, self.positions]
        centred = x.double() - x.double().mean(0)
        level = x * self.levels // self.data.num_states
        one_hot = torch.nn.functional.one_hot(level, self.levels).float().flatten(1)
        return centred.T @ centred / len(x), one_hot.T @ one_hot / len(x)
