"""Laws of λ: shapes, margins, dependence, atoms."""

import pytest
import torch

from di4c.draws import Draws
from di4c.errors import SpecError
from di4c.testing import check_latent
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.product_categorical import ProductCategorical
from di4c_plugins.latents.unit_cube import Sobol, Stratified, Uniform

LAWS = {
    "uniform": Uniform(),
    "uniform2": Uniform(dim=2),
    "stratified": Stratified(dim=2),
    "sobol": Sobol(dim=2),
    "gaussian": Gaussian(dim=3),
    "categorical": Categorical(atoms=8),
    "product-categorical": ProductCategorical(factors=4, values=5),
}


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_contract_shape_and_do_not_depend_on_ranks(name):
    law = LAWS[name]
    whole = law.sample(4, Draws(0, count=6))
    assert whole.shape == (6, 4, law.dim) and whole.dtype == torch.float32
    assert torch.equal(whole[2:], law.sample(4, Draws(0, first=2, count=4)))


@pytest.mark.parametrize("name", ["uniform", "uniform2", "stratified", "sobol"])
@pytest.mark.parametrize("components", [1, 5])
def test_each_component_is_uniform_in_the_margin(name, components):
    lam = LAWS[name].sample(components, Draws(1, count=4000)).double()
    error = 5 / (12 * 4000) ** 0.5  # 5 standard errors
    assert (lam.mean(0) - 0.5).abs().max() < error
    assert ((lam < 0.25).double().mean(0) - 0.25).abs().max() < 5 * (0.1875 / 4000) ** 0.5


def test_stratified_puts_one_draw_in_every_stratum():
    lam = Stratified(dim=2).sample(8, Draws(2, count=50))
    cells = (lam * 8).long().sort(dim=1).values
    assert torch.equal(cells, torch.arange(8)[None, :, None].expand(50, 8, 2))


@pytest.mark.parametrize("name", [*LAWS, "spread out", "stratified normal"])
def test_laws_say_whether_their_draws_are_independent(name):
    """Two draws of an example are correlated just where a law does not claim independence."""
    law = {
        "categorical": Categorical(atoms=4, independent=True), "spread out": Categorical(atoms=4),
        "stratified normal": Gaussian(dim=1, points="stratified"),
    }.get(name) or LAWS[name]  # fmt: skip
    correlation = torch.stack(
        [torch.corrcoef(pair)[0, 1] for pair in law.sample(2, Draws(4, count=4000)).permute(2, 1, 0)]
    )
    assert law.independent == (correlation.abs().max() < 5 / 4000**0.5)
    check_latent(law)


def test_a_false_claim_of_independence_is_found():
    class Claiming(Stratified):
        independent = True

    with pytest.raises(AssertionError, match="correlated"):
        check_latent(Claiming())


def test_sobol_integrates_better_than_independent_draws():
    def error(law):
        return (law.sample(64, Draws(3, count=300)).prod(-1).mean(-1) - 0.25).abs().mean()

    assert error(Sobol(dim=2)) < 0.4 * error(Uniform(dim=2))


@pytest.mark.parametrize("name", LAWS)
def test_one_atom_makes_a_product_and_atoms_differ_by_seed(name):
    law = LAWS[name]
    atoms, weights = law.discretised(1, Draws(0))
    assert atoms.shape == (1, law.dim) and torch.allclose(weights, torch.ones(1))
    atoms, weights = law.discretised(4, Draws(0))
    assert atoms.shape == (4, law.dim) and abs(weights.sum() - 1) < 1e-6
    if law.num_atoms is None:
        assert not torch.equal(atoms, law.discretised(4, Draws(1))[0])
        assert len(atoms.unique(dim=0)) == 4


def test_a_finite_law_is_enumerated_with_its_weights():
    law = Categorical(atoms=3, weights=[1.0, 2.0, 1.0])
    lam = law.sample(3, Draws(0, count=2))
    assert torch.equal(lam, torch.eye(3).expand(2, 3, 3))
    assert torch.allclose(law.log_weights(3).exp(), torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64))
    frequency = law.sample(2, Draws(0, count=20_000)).mean((0, 1))
    assert (frequency - torch.tensor([0.25, 0.5, 0.25])).abs().max() < 5 * (0.25 / 40_000) ** 0.5


def test_bad_options_are_named():
    with pytest.raises(SpecError, match="latent.weights"):
        Categorical(atoms=3, weights=[1.0])
    with pytest.raises(SpecError, match="latent.dim"):
        Uniform(dim=0)
