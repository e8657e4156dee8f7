"""Every λ_m of a dependent set has the prior of λ: proven by enumerating the uniforms it is made from on a grid."""

import itertools

import pytest
import torch

from di4c.contracts import Draws
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.gaussian import POINTS, Gaussian
from di4c_plugins.latents.unit_cube import Sobol, Stratified


class Given(Draws):
    """Draws whose uniforms, call by call, are given: a list of [B, …]."""

    def __init__(self, *answers: torch.Tensor):
        super().__init__(0, count=len(answers[0]))
        self.answers = [a.double() for a in answers]

    def uniform(self, *shape):
        answer = self.answers.pop(0)
        assert answer.shape == (self.count, *shape)
        return answer


def midpoints(n: int) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def assert_every_component_visits_every_cell_equally_often(lam: torch.Tensor, cells: int):
    """lam [T, M, L] over T equally likely outcomes: each coordinate of each λ_m takes the `cells` midpoints, T/cells times each."""
    assert len(lam) % cells == 0
    expected = midpoints(cells).repeat_interleave(len(lam) // cells)
    for one in lam.flatten(1).double().unbind(1):
        torch.testing.assert_close(one.sort().values, expected, atol=1e-6, rtol=0)


def test_stratified():
    """All 3! matchings of the strata times two positions within each."""
    ranks = torch.tensor(list(itertools.permutations(range(3))))
    within = torch.tensor(list(itertools.product(midpoints(2).tolist(), repeat=3)))
    pairs = list(itertools.product(ranks, within))
    order = torch.stack([r for r, _ in pairs])[:, None] / 3
    lam = Stratified().sample(3, Given(order, torch.stack([w for _, w in pairs])[:, None]))
    assert_every_component_visits_every_cell_equally_often(lam, 6)
    assert torch.equal((lam[..., 0] * 3).long().sort(-1).values, torch.arange(3).expand(len(pairs), 3))


@pytest.mark.parametrize("dim", [1, 2])
def test_sobol(dim):
    """All shifts on a grid of which the points are multiples."""
    shifts = torch.tensor(list(itertools.product(midpoints(8).tolist(), repeat=dim)))
    assert_every_component_visits_every_cell_equally_often(Sobol(dim=dim).sample(4, Given(shifts[:, None])), 8)


@pytest.mark.parametrize("components", [1, 2, 3])
def test_categorical_draws_spread_over_the_atoms(components):
    """Unequal weights, all orders of the atoms, all levels: each draw has the atoms' probabilities."""
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    law = Categorical(atoms=4, weights=[*weights.tolist(), 0.0])  # a fourth, so that M = 3 does not enumerate
    orders = torch.tensor(list(itertools.permutations(range(4))))
    outcomes = list(itertools.product(orders, midpoints(12)))
    levels = torch.stack([v for _, v in outcomes])[:, None].repeat(1, components)
    given = Given(levels, torch.stack([o.argsort() for o, _ in outcomes]) / 4)
    frequency = law.sample(components, given).double().mean(0)
    torch.testing.assert_close(frequency, torch.cat([weights, torch.zeros(1)]).expand(components, 4))


def test_fewer_draws_than_equal_atoms_never_repeat_one_and_all_subsets_are_alike():
    lam = Categorical(atoms=4).sample(2, Draws(0, count=12_000)).argmax(-1)
    assert (lam[:, 0] != lam[:, 1]).all()
    pairs, counts = lam.sort(-1).values.unique(dim=0, return_counts=True)
    assert len(pairs) == 6 and (counts / 12_000 - 1 / 6).abs().max() < 5 * (5 / 36 / 12_000) ** 0.5
    repeated = Categorical(atoms=4, independent=True).sample(2, Draws(0, count=12_000)).argmax(-1)
    assert abs(float((repeated[:, 0] == repeated[:, 1]).double().mean()) - 0.25) < 5 * (0.1875 / 12_000) ** 0.5


@pytest.mark.parametrize("points", POINTS)
def test_gaussian_points_are_the_cubes_through_the_quantile_function(points):
    lam = Gaussian(dim=2, points=points).sample(5, Draws(3, count=4000)).double()
    assert lam.isfinite().all() and lam.mean(0).abs().max() < 5 / 4000**0.5
    assert (lam.var(0) - 1).abs().max() < 5 * (2 / 4000) ** 0.5
    if points != "independent":
        cube = POINTS[points](dim=2).sample(5, Draws(3, count=4000)).double()
        torch.testing.assert_close(torch.special.ndtr(lam), cube, atol=1e-5, rtol=0)
