"""A finite prior of λ."""

import torch
from torch import Tensor

from di4c.contracts import Draws, LambdaSampler, cumulated, placed
from di4c.errors import SpecError
from di4c_plugins.latents.unit_cube import shared_shift


class Categorical(LambdaSampler):
    """K atoms, one-hot codes in L = K dimensions: no bias with M = K, else M draws spread over the atoms.

    `weights` are their probabilities (equal if not given).
    With components = K (or "all") every atom is returned once and weighted by its probability: averages over λ are exact.
    Otherwise the M draws are spread over the atoms (systematic sampling in random order): each has the prior `weights`, no atom
    comes twice where its probability is at most 1/M, and with equal weights they are a random subset. Its log-mean is less biased
    and less noisy than that of independent draws (Hoeffding 1963, theorem 4); `independent` asks for these.
    """

    def __init__(self, *, atoms: int, weights: list[float] | None = None, independent: bool = False):
        probs = torch.tensor(weights or [1.0] * atoms, dtype=torch.float64)
        if atoms < 1 or len(probs) != atoms or (probs < 0).any() or probs.sum() <= 0:
            raise SpecError(f"latent.weights: {atoms} non-negative numbers, one an atom; found {weights}")
        self.dim = self.num_atoms = atoms
        self._probs = probs / probs.sum()
        self.independent = independent

    def sample(self, components: int, draws: Draws) -> Tensor:
        if components == self.num_atoms:
            return torch.eye(self.num_atoms, device=draws.device).expand(draws.count, -1, -1)
        levels = draws.uniform(components)
        if self.independent:
            return self._one_hot(levels)
        spread = (torch.arange(components, device=levels.device) / components + levels[:, :1]) % 1.0
        return self._one_hot_in_order(spread, draws.permutation(self.num_atoms))

    def log_weights(self, components: int) -> Tensor:
        if components == self.num_atoms:
            return self._probs.clamp_min(1e-300).log()
        return super().log_weights(components)

    def discretised(self, atoms: int, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """K quantile midpoints of the atoms' index, shifted; all atoms with their own weights if that many are asked for."""
        if atoms >= self.num_atoms:
            return torch.eye(self.num_atoms), self._probs.float()
        levels = ((torch.arange(atoms, dtype=torch.float64) + 0.5) / atoms + shared_shift(1, draws)) % 1.0
        return self._one_hot(levels), torch.full((atoms,), 1 / atoms)

    def _one_hot_in_order(self, levels: Tensor, order: Tensor) -> Tensor:
        """The atoms at `levels` [B, M] of the distribution whose atoms stand in `order` [B, K]: [B, M, K] float32."""
        cumulative = cumulated(placed(self._probs, levels.device)[order])
        index = torch.searchsorted(cumulative, levels.contiguous(), right=True).clamp_max(self.num_atoms - 1)
        return torch.nn.functional.one_hot(order.gather(-1, index), self.num_atoms).float()

    def _one_hot(self, levels: Tensor) -> Tensor:
        """The atoms at quantile `levels` [...]: [..., K] float32."""
        cumulative = placed(self._probs.cumsum(0), levels.device)
        index = torch.searchsorted(cumulative, levels.contiguous(), right=True).clamp_max(self.num_atoms - 1)
        return torch.nn.functional.one_hot(index, self.num_atoms).float()
