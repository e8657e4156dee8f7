"""Transition matrices exp(R·τ) of a reversible Markov chain, and look-ups in them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.errors import SpecError
from di4c_plugins.processes.rates import RateMatrix

ROUNDING = 1e-14
"""Entries of exp(R·τ) below this are rounding errors of the eigenvectors' product, and set to zero."""

MAX_LOG_RATIO = 30.0
"""Beyond this range of log π, undoing the symmetrisation would cost half of float64's digits."""


class ReversibleChain:
    """exp(R·τ) by the eigendecomposition of the symmetric Π^{1/2} R Π^{−1/2}, in float64 throughout.

    Published code multiplies float32 eigenvectors, which costs 1e-6 absolute and rows that do not sum to 1.
    Raises SpecError where π varies too much for the decomposition to be accurate.
    """

    def __init__(self, matrix: RateMatrix):
        self.num_states = len(matrix.rate)
        self.rate = matrix.rate
        self.stationary = matrix.log_stationary.exp()
        spread = float(matrix.log_stationary.max() - matrix.log_stationary.min())
        if spread > MAX_LOG_RATIO:
            raise SpecError(
                f"process: the stationary law varies by a factor of e^{spread:.0f} over {self.num_states} states "
                f"(at most e^{MAX_LOG_RATIO:.0f}): choose a larger target_sigma"
            )
        scale = (matrix.log_stationary / 2).exp()
        self._eigenvalues, vectors = torch.linalg.eigh(matrix.rate * scale[:, None] / scale)
        self._left, self._right = vectors / scale[:, None], vectors.mT * scale
        self._jumps = matrix.rate - torch.diag(matrix.rate.diagonal())
        self._copies: dict[torch.device, tuple[Tensor, ...]] = {}

    def transition(self, tau: Tensor) -> Tensor:
        """exp(R·τ), [from, to], rows summing to 1: [U, S, S] float64, for τ [U]; the identity at τ = 0."""
        left, values, right, _ = self._on(tau.device)
        product = (left * torch.exp(values * tau[:, None])[:, None, :]) @ right
        kept = torch.where(product < ROUNDING, 0.0, product)
        return kept / kept.sum(-1, keepdim=True)

    def jumps(self, device: torch.device) -> Tensor:
        """R without its diagonal: [S, S] float64."""
        return self._on(device)[3]

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._copies:
            self._copies[device] = tuple(
                x.to(device) for x in (self._left, self._eigenvalues, self._right, self._jumps)
            )
        return self._copies[device]


@dataclass(frozen=True)
class Tables:
    """A few matrices [U, S, S], [from, to], and which of them each example uses: [B] int64."""

    matrices: Tensor
    which: Tensor

    def number(self, state: Tensor) -> Tensor:
        """The rows of examples' states among all U·S rows: int64, shape of `state` [B, D]."""
        return self.which[:, None] * self.matrices.shape[-1] + state

    def rows(self, state: Tensor) -> Tensor:
        """matrix_b[state[b, d], :]: [B, d, S]."""
        return self.matrices[self.which[:, None], state]

    def columns(self, state: Tensor) -> Tensor:
        """matrix_b[:, state[b, d]]: [B, d, S]."""
        return self.matrices.mT[self.which[:, None], state]

    def after(self, law: Tensor) -> Tensor:
        """Σ_i law[b, d, i]·matrix_b[i, :]: [B, d, S]."""
        return law @ (self.matrices[0] if len(self.matrices) == 1 else self.matrices[self.which])

    def expected(self, values: Tensor) -> Tensor:
        """Σ_j matrix_b[i, j]·values[b, d, j] of every state i: [B, d, S]."""
        return values @ (self.matrices[0] if len(self.matrices) == 1 else self.matrices[self.which]).mT

    def then(self, other: "Tables") -> "Tables":
        """The matrix products of the same examples' matrices."""
        return Tables(self.matrices @ other.matrices, self.which)


def search_rows(cumulative: Tensor, rows: Tensor, uniform: Tensor) -> Tensor:
    """The first state whose cumulative mass exceeds u times the row's total: int64, shape of `rows`.

    cumulative [..., S] float64, its rows counted by `rows` int64; uniform float64 in [0, 1). A binary search by single
    look-ups, so that no row is gathered. A state of mass 0 is never returned.
    """
    states = cumulative.shape[-1]
    flat, start = cumulative.flatten(), rows * states
    total = flat[start + states - 1]
    level = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.zeros_like(rows)
    for bit in reversed(range((states - 1).bit_length())):
        higher = found + (1 << bit)
        below = flat[start + (higher - 1).clamp_max(states - 1)] <= level
        found = torch.where(below & (higher < states), higher, found)
    return found
