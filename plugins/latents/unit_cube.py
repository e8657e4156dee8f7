"""λ samplers on [0, 1]^L, uniform in the margin; they differ in how the M draws of an example depend on one another.

Antithetic pairs (λ, 1 − λ) are left out: measured, they do not beat independent draws (tools/results/estimators.json).
"""

import torch
from torch import Tensor, nn

from di4c.contracts import Draws, LambdaSampler, placed
from di4c.errors import SpecError
from di4c_plugins.latents.proposals import GaussianProposal, start_gaussian


def sobol_points(number: int, dim: int) -> Tensor:
    """The first `number` points of the unscrambled Sobol sequence: [number, dim] float64."""
    return torch.quasirandom.SobolEngine(dim).draw(number, dtype=torch.float64)


class Uniform(LambdaSampler):
    """M independent draws of U[0, 1]^L (the papers' prior with L = 1); the log-mean's bias is O(1/M)."""

    independent = True

    def __init__(self, *, dim: int = 1):
        if dim < 1:
            raise SpecError(f"latent.dim: at least 1; found {dim}")
        self.dim, self.proposal_width = dim, 2 * dim

    def sample(self, components: int, draws: Draws) -> Tensor:
        return self.points(components, draws).float()

    def points(self, components: int, draws: Draws) -> Tensor:
        """M points an example, each uniform in the margin: [B, M, L] float64."""
        return draws.uniform(components, self.dim)

    def discretised(self, atoms: int, draws: Draws | None) -> tuple[Tensor, Tensor]:
        midpoints = (torch.arange(atoms, dtype=torch.float64) + 0.5)[:, None] / atoms
        points = midpoints if self.dim == 1 else sobol_points(atoms, self.dim) + 0.5 / atoms
        shifted = (points + shared_shift(self.dim, draws)) % 1.0
        return shifted.float(), torch.full((atoms,), 1 / atoms)

    def proposal(self, parameters: Tensor) -> GaussianProposal:
        return GaussianProposal(parameters, self.points, on_cube=True)

    def start_proposal(self, layer: nn.Linear, *, spread: float, noise: float) -> None:
        start_gaussian(layer, spread=spread, noise=noise)


def shared_shift(dim: int, draws: Draws | None) -> Tensor:
    """One U[0, 1]^L for all examples, 0 without draws: [L] float64."""
    if draws is None:
        return torch.zeros(dim, dtype=torch.float64)
    return torch.tensor([draws.child("shift", i).scalar() for i in range(dim)], dtype=torch.float64)


class Stratified(Uniform):
    """One draw in each of M strata of every coordinate, matched at random (Latin hypercube); less bias and noise than uniform."""

    independent = False

    def points(self, components: int, draws: Draws) -> Tensor:
        cell = draws.uniform(self.dim, components).argsort(-1)
        return ((cell + draws.uniform(self.dim, components)) / components).transpose(1, 2)


class Sobol(Uniform):
    """The first M Sobol points, shifted modulo 1 by a uniform draw an example: the least bias and noise of the cube's samplers.

    Randomised quasi-Monte Carlo, at the cost of independent draws. The gain is large where the components vary smoothly with λ.
    """

    independent = False

    def points(self, components: int, draws: Draws) -> Tensor:
        points = placed(sobol_points(components, self.dim), draws.device)
        return (points + draws.uniform(1, self.dim)) % 1.0
