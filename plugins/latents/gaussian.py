"""A Gaussian law of λ."""

import torch
from di4c_plugins.latents.unit_cube import Uniform
from torch import Tensor

from di4c.contracts import Draws, LambdaSampler


class Gaussian(LambdaSampler):
    """M independent draws of N(0, I) in L dimensions."""

    def __init__(self, *, dim: int):
        self._cube = Uniform(dim=dim)
        self.dim = dim

    def sample(self, components: int, draws: Draws) -> Tensor:
        return draws.normal(components, self.dim).float()

    def support(self, atoms: int, draws: Draws | None) -> tuple[Tensor, Tensor]:
        points, weights = self._cube.support(atoms, draws)
        return torch.special.ndtri(points.double().clamp(1e-6, 1 - 1e-6)).float(), weights
