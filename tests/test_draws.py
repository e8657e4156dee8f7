"""Keyed random numbers: the same for any split over ranks, and exact categorical draws."""

import pytest
import torch

from di4c.draws import Draws, categorical


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (7,)])
def test_a_range_of_examples_draws_what_the_whole_draws(shape):
    whole = Draws(7, first=0, count=10).child("x_t").uniform(*shape)
    parts = [Draws(7, first=a, count=b - a).child("x_t").uniform(*shape) for a, b in [(0, 3), (3, 4), (4, 10)]]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole[2:9], Draws(7, first=0, count=10).child("x_t").rows(2, 9).uniform(*shape))


def test_repeated_examples_split_too():
    whole = Draws(1, first=0, count=4).repeat(3).uniform(2)
    assert torch.equal(whole[6:], Draws(1, first=2, count=2).repeat(3).uniform(2))


def test_streams_differ_by_seed_purpose_and_call():
    draws = Draws(3, count=100)
    first, second = draws.uniform(), draws.uniform()
    others = [
        second,
        draws.child("a").uniform(),
        draws.child("b").uniform(),
        draws.child("a", 1).uniform(),
        Draws(4, count=100).uniform(),
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([first, other]))[0, 1]) < 0.4  # 4 standard errors of 1/√100
    assert torch.equal(draws.child("a").uniform(), draws.child("a").uniform())


def test_a_child_does_not_depend_on_its_parents_calls():
    fresh, used = Draws(3, count=4), Draws(3, count=4)
    used.uniform(5)
    assert torch.equal(fresh.child("a").uniform(), used.child("a").uniform())


def test_a_scalar_is_shared_by_all_examples():
    assert Draws(5, first=0, count=3).child("side").scalar() == Draws(5, first=3, count=9).child("side").scalar()


def test_moments_of_the_uniform_and_normal():
    draws = Draws(0, count=1000)
    u, z = draws.uniform(100), draws.normal(100)
    error = 4 / (1e5**0.5)  # 4 standard errors of a unit-variance mean
    assert abs(u.mean() - 0.5) < error and abs(u.var() - 1 / 12) < error
    assert abs(z.mean()) < error and abs(z.var() - 1) < 2 * error


@pytest.mark.parametrize("states", [2, 18, 1000])
def test_categorical_frequencies_are_the_probabilities(states):
    probs = torch.rand(3, states, generator=torch.Generator().manual_seed(0)) ** 6
    n = 40_000
    x = categorical(probs, Draws(1, count=3).uniform(n))
    frequency = torch.stack([torch.bincount(row, minlength=states) for row in x]) / n
    p = (probs / probs.sum(-1, keepdim=True)).double()
    common = p * n > 20  # where the count is close to normal
    z = (frequency - p) / (p * (1 - p) / n).sqrt()
    assert common.any() and z[common].abs().max() < 5


@pytest.mark.parametrize("states", [4, 2000])
def test_categorical_never_draws_a_state_of_mass_zero(states):
    probs = torch.zeros(1, states)
    probs[0, 1] = probs[0, states - 2] = 1e-20
    u = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1 - 2**-53]], dtype=torch.float64)
    assert set(categorical(probs, u).flatten().tolist()) <= {1, states - 2}


def test_categorical_keeps_probabilities_that_float32_noise_truncates():
    """float32 Gumbel noise cannot produce events rarer than about 2^-24; inversion in float64 does."""
    probs = torch.tensor([1.0, 2.0**-40])
    assert categorical(probs[None], torch.tensor([1 - 2.0**-42], dtype=torch.float64)).item() == 1


def test_from_generator_is_reproducible():
    a, b = (Draws.from_generator(torch.Generator().manual_seed(5), 4).uniform(3) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("states", [513, 768, 1000, 3001])
def test_inversion_by_blocks_is_inversion(states):
    """In float64 both ways, so that they differ nowhere but within rounding of a boundary."""
    g = torch.Generator().manual_seed(states)
    probs = torch.rand(5, states, generator=g, dtype=torch.float64) ** 8
    u = torch.rand(5, 400, generator=g, dtype=torch.float64)
    direct = torch.searchsorted(probs.cumsum(-1), u * probs.sum(-1, keepdim=True), right=True)
    assert torch.equal(categorical(probs, u), direct)
