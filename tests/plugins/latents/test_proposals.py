"""Families of posteriors: densities, divergences and weights against scipy and enumeration."""

import math

import numpy
import pytest
import torch
from scipy import integrate, stats

from di4c.draws import Draws
from di4c.errors import SpecError
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.product_categorical import ProductCategorical
from di4c_plugins.latents.unit_cube import Uniform

MOMENTS = torch.tensor([[[0.7, -1.1, 0.3, -0.6]]])  # μ and ρ of two dimensions; log σ = 5·tanh(ρ/5)


def sigma(k: int) -> float:
    return math.exp(5 * math.tanh(float(MOMENTS[0, 0, 2 + k]) / 5))


@pytest.mark.parametrize("sampler", [Gaussian(dim=2), Uniform(dim=2)], ids=["normal", "cube"])
def test_a_gaussians_divergence_is_the_integral(sampler):
    divergence = sampler.proposal(MOMENTS).divergence()[0, 0]
    for k, found in enumerate(divergence.tolist()):
        q, p = stats.norm(float(MOMENTS[0, 0, k]), sigma(k)), stats.norm()
        expected, _ = integrate.quad(lambda z, q=q, p=p: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -12, 12)
        assert found == pytest.approx(expected, abs=1e-4)


def test_the_ratio_on_the_cube_is_that_of_its_densities_there():
    """q of λ = Φ(z) has the density q_z(z)/φ(z), and the prior 1."""
    found = Uniform(dim=2).proposal(MOMENTS).draw(5, Draws(0, count=1))
    z = stats.norm.ppf(found.lam[0, 0].double().numpy())
    densities = [stats.norm(float(MOMENTS[0, 0, k]), sigma(k)).pdf(z[:, k]) / stats.norm.pdf(z[:, k]) for k in range(2)]
    torch.testing.assert_close(
        found.log_ratio[0, 0].double(), -torch.from_numpy(numpy.log(densities).sum(0)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("points", ["independent", "stratified", "sobol"])
def test_importance_weights_give_the_priors_own_moments(points):
    """E_q[p/q·f(λ)] = E_p f(λ), also where the draws of an example depend on one another."""
    parameters = (0.4 * MOMENTS).expand(4000, -1, -1)
    found = Gaussian(dim=2, points=points).proposal(parameters).draw(4, Draws(0, count=4000))
    weights = found.log_ratio.exp()[:, 0, :, None].double()
    lam = found.lam[:, 0].double()
    for value, expected in ((lam, 0.0), (lam.square(), 1.0)):
        mean = (weights * value).mean(1)
        assert ((mean.mean(0) - expected).abs() < 5 * mean.std(0) / 4000**0.5).all()


def test_a_product_of_categoricals_by_enumeration():
    sampler = ProductCategorical(factors=2, values=3)
    logits = torch.tensor([[[0.5, -1.0, 0.2, 1.5, 0.0, -0.3]]])
    q = logits.unflatten(-1, (2, 3)).softmax(-1)[0, 0]
    divergence = sampler.proposal(logits).divergence()[0, 0]
    for k in range(2):
        expected = stats.entropy(q[k].numpy(), [1 / 3] * 3)
        assert float(divergence[k]) == pytest.approx(expected, abs=1e-5)
    found = sampler.proposal(logits.expand(20000, -1, -1)).draw(2, Draws(0, count=20000))
    atoms = sampler.sample(9, Draws(0))[0]
    assert torch.equal(atoms.unique(dim=0).flip(0), atoms) and sampler.num_atoms == 9
    joint = (q[0][:, None] * q[1]).flatten()
    which = (found.lam[:, 0, :, None] == atoms).all(-1).float()  # [B, M, K]
    assert (which.sum(-1) == 1).all()
    assert (which.mean((0, 1)) - joint).abs().max() < 5 * 0.5 / 40000**0.5
    torch.testing.assert_close(found.log_q, (which @ joint.log())[:, None])
    torch.testing.assert_close(found.log_ratio, -math.log(9) - found.log_q)


def test_many_atoms_are_drawn_not_listed():
    sampler = ProductCategorical(factors=12, values=4)
    assert sampler.num_atoms is None and sampler.sample(5, Draws(0, count=2)).shape == (2, 5, 48)
    assert torch.equal(sampler.sample(5, Draws(0, count=2)).unflatten(-1, (12, 4)).sum(-1), torch.ones(2, 5, 12))
    atoms, weights = sampler.discretised(16, Draws(0))
    assert len(atoms.unique(dim=0)) == 16 and weights.sum() == pytest.approx(1.0)
    with pytest.raises(SpecError, match="factors ≥ 1 and values ≥ 2"):
        ProductCategorical(factors=0, values=4)
