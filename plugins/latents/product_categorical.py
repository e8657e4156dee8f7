"""Many λ of few numbers: a product of categorical distributions."""

import math

import torch
from torch import Tensor, nn

from di4c.contracts import Draws, LambdaSampler
from di4c.errors import SpecError
from di4c_plugins.latents.proposals import CategoricalProposal
from di4c_plugins.latents.unit_cube import shared_shift, sobol_points

MOST_LISTED = 256
"""Atoms that are still enumerated; more of them count as infinitely many."""


class ProductCategorical(LambdaSampler):
    """`factors` independent categorical variables, uniform on `values` values each: values^factors atoms, L = factors·values.

    λ is the one-hots of the factors in a row. At most 256 atoms can be enumerated (components = their number); of more there are
    M independent draws, from the prior or from a posterior whose factors are independent too (`objective.proposal`).
    """

    independent = True

    def __init__(self, *, factors: int, values: int):
        if factors < 1 or values < 2:
            raise SpecError(f"latent: factors ≥ 1 and values ≥ 2; found {factors} and {values}")
        self.factors, self.values, self.dim = factors, values, factors * values
        self.num_atoms = values**factors if values**factors <= MOST_LISTED else None
        self.proposal_width = self.dim

    def sample(self, components: int, draws: Draws) -> Tensor:
        if components == self.num_atoms:
            return self._atoms().to(draws.device).expand(draws.count, -1, -1)
        return self._one_hots(draws.integers(self.values, components, self.factors))

    def discretised(self, atoms: int, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """All atoms if that many are asked for, else those of K shifted Sobol points."""
        if self.num_atoms is not None and atoms >= self.num_atoms:
            return self._atoms(), torch.full((self.num_atoms,), 1 / self.num_atoms)
        points = (sobol_points(atoms, self.factors) + 0.5 / atoms + shared_shift(self.factors, draws)) % 1.0
        index = (points * self.values).long().clamp_max(self.values - 1)
        return self._one_hots(index), torch.full((atoms,), 1 / atoms)

    def proposal(self, parameters: Tensor) -> CategoricalProposal:
        return CategoricalProposal(parameters, self.values)

    def start_proposal(self, layer: nn.Linear, *, spread: float, noise: float) -> None:
        """Logits of standard deviation spread/noise over examples."""
        nn.init.normal_(layer.weight, std=spread / noise / math.sqrt(layer.in_features))
        nn.init.zeros_(layer.bias)

    def _atoms(self) -> Tensor:
        """Every atom: [K, L]."""
        each = [torch.arange(self.values)] * self.factors
        return self._one_hots(torch.cartesian_prod(*each).view(-1, self.factors))

    def _one_hots(self, index: Tensor) -> Tensor:
        """[..., factors] int64 → [..., L] float32."""
        return torch.nn.functional.one_hot(index, self.values).flatten(-2).float()
