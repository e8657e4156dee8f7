"""A Gaussian prior of λ."""

from typing import Literal

import torch
from torch import Tensor, nn

from di4c.contracts import Draws, LambdaSampler
from di4c_plugins.latents.proposals import GaussianProposal, start_gaussian
from di4c_plugins.latents.unit_cube import Sobol, Stratified, Uniform

POINTS = {"independent": Uniform, "stratified": Stratified, "sobol": Sobol}


class Gaussian(LambdaSampler):
    """N(0, I) in L dimensions: M independent draws, or with `points` stratified or Sobol sets, of less bias and noise.

    points: how the M draws of an example depend on one another, by the names of the samplers on [0, 1]^L.
    """

    def __init__(self, *, dim: int, points: Literal["independent", "stratified", "sobol"] = "independent"):
        self._cube = POINTS[points](dim=dim)
        self.dim, self.independent, self.proposal_width = dim, self._cube.independent, 2 * dim

    def sample(self, components: int, draws: Draws) -> Tensor:
        if self.independent:
            return draws.normal(components, self.dim).float()
        return torch.special.ndtri(self._cube.points(components, draws).clamp(2.0**-54, 1 - 2.0**-53)).float()

    def discretised(self, atoms: int, draws: Draws | None) -> tuple[Tensor, Tensor]:
        points, weights = self._cube.discretised(atoms, draws)
        return torch.special.ndtri(points.double().clamp(1e-6, 1 - 1e-6)).float(), weights

    def proposal(self, parameters: Tensor) -> GaussianProposal:
        return GaussianProposal(parameters, self._cube.points)

    def start_proposal(self, layer: nn.Linear, *, spread: float, noise: float) -> None:
        start_gaussian(layer, spread=spread, noise=noise)
