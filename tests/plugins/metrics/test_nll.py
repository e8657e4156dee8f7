import itertools
import math

import pytest
import torch

from di4c.contracts import Draws, Prediction, Sampler
from di4c_plugins.metrics.nll import LikelihoodBound, _runs, mixture_log_prob, stratified_steps
from di4c_plugins.processes.absorbing import Absorbing

STATES = 3
LENGTH = 2


class Grid(Sampler):
    """Only the times matter here."""

    def step(self, denoiser, x_t, t, s, cond, draws):
        raise NotImplementedError


def every_sequence():
    return torch.tensor(list(itertools.product(range(STATES), repeat=LENGTH)))


def bound(source, generation, x, components, *, steps, seed=0, **options):
    process = Absorbing(STATES)
    metric = LikelihoodBound(data=source(x, x, STATES), process=process, **options)
    made = generation(x[:1], steps=steps, sampler=Grid(), components=components, draws=Draws(seed, count=1))
    return metric(made)["nll_nats_per_token"]


def fixed_mixture(weights, seed=3):
    """components() of a mixture that ignores x_t, and its tables log p^d(x | λ_m) [M, D, S + 1]."""
    logits = Draws(seed, count=len(weights)).normal(LENGTH, STATES).float()
    log_p = torch.cat([logits.log_softmax(-1), torch.full((len(weights), LENGTH, 1), -1e6)], -1)

    def components(x_t, t, cond, draws, num):
        prediction = Prediction.from_logits(log_p.expand(len(x_t), -1, -1, -1), x_t)
        return type(prediction)(**{**vars(prediction), "log_weights": weights.log()})

    return components, log_p


def test_one_step_bound_is_the_true_likelihood(source, generation):
    weights = torch.tensor([0.5, 0.3, 0.2])
    components, log_p = fixed_mixture(weights)
    x = every_sequence()
    joint = sum(log_p[:, d, x[:, d]] for d in range(LENGTH))  # [M, n]
    exact = -(weights[:, None] * joint.exp()).sum(0).log().mean() / LENGTH
    assert bound(source, generation, x, components, steps=1) == pytest.approx(float(exact), rel=1e-5)


def test_averaged_prediction_is_scored_as_a_product(source, generation):
    weights = torch.tensor([0.5, 0.3, 0.2])
    components, log_p = fixed_mixture(weights)
    x = every_sequence()
    marginal = (weights[:, None, None] * log_p.exp()).sum(0).log()
    exact = -sum(marginal[d, x[:, d]] for d in range(LENGTH)).mean() / LENGTH
    value = bound(source, generation, x, lambda *a: components(*a).average(), steps=1)
    assert value == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("terms", [2, 8])
def test_many_steps_of_a_model_that_ignores_its_input(source, generation, terms):
    """A product model that ignores x_t reveals every position once, at whatever step: the bound is −log p(x_0) for all n.

    The randomness left is when positions are revealed; tolerance: 5 standard errors of 1800 examples.
    """
    components, log_p = fixed_mixture(torch.ones(1))
    x = every_sequence().repeat(200, 1)
    each = -sum(log_p[0, d, x[:, d]] for d in range(LENGTH)) / LENGTH
    value = bound(source, generation, x, components, steps=8, terms=terms, num_examples=len(x))
    spread = 5 * (each.square().mean() * 8 / terms / len(x)) ** 0.5
    assert abs(value - float(each.mean())) < spread


def test_noise_of_the_frequencies_themselves_cancels(source, generation):
    """A model of the training frequencies has its bound exactly at every n, since the subtracted terms are its own."""
    x = every_sequence().repeat(50, 1)[:400]
    process = Absorbing(STATES)
    log_p = LikelihoodBound(data=source(x, x, STATES), process=process)._frequencies
    exact = -log_p.gather(1, x.T).mean()
    model = lambda x_t, *_: Prediction.from_logits(log_p.expand(len(x_t), -1, -1), x_t)
    value = bound(source, generation, x, model, steps=8, num_examples=400)
    assert torch.allclose(log_p[:, :STATES].exp().sum(1), torch.ones(LENGTH), atol=1e-5)
    assert value == pytest.approx(float(exact), rel=1e-5)


def test_large_tables_are_pooled_over_positions(source, monkeypatch, correlated):
    monkeypatch.setattr("di4c_plugins.metrics.nll.LARGE_TABLE", 10)
    log_p = LikelihoodBound(data=source(correlated, correlated, 5), process=Absorbing(5))._frequencies
    assert log_p.shape == (6, 6) and log_p.stride()[0] == 0
    expected = (correlated[: 2000 * 2 : 2].flatten().bincount(minlength=5) + 1.0) / (2000 * 6 + 6)
    assert torch.allclose(log_p[0, :5].exp(), expected / expected.sum(), atol=1e-4)


def test_exact_conditionals_approach_the_entropy(source, generation):
    """Data x = (a, a): one step costs two entropies, many steps nearly one, since the second token then follows the first."""
    x = torch.arange(STATES)[:, None].expand(-1, LENGTH).repeat(300, 1)

    def exact(x_t, t, cond, draws, num):
        table = torch.full((len(x_t), LENGTH, STATES + 1), -1e6)
        table[..., :STATES] = -math.log(STATES)
        seen = x_t.min(1).values
        known = seen < STATES
        table[known] = torch.full_like(table[known], -1e6).scatter(
            -1, seen[known][:, None, None].expand(-1, LENGTH, 1), 0.0
        )
        return Prediction.from_logits(table, x_t)

    entropy = math.log(STATES) / LENGTH
    one, many = (bound(source, generation, x, exact, steps=n, terms=n, num_examples=900) for n in (1, 32))
    assert one == pytest.approx(2 * entropy, rel=1e-6)
    assert many == pytest.approx(entropy * (1 + 1 / 32), rel=0.1)


def test_same_draws_same_value(source, generation):
    components, _ = fixed_mixture(torch.tensor([0.5, 0.5]))
    x = every_sequence()
    first, again, other = (bound(source, generation, x, components, steps=4, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_stratified_steps_cover_every_step_equally():
    counts = torch.zeros(5)
    for offset in torch.linspace(0, 0.999, 50).tolist():
        for term in range(2):
            counts += stratified_steps(5, 2, term, 13, offset).bincount(minlength=5)
    assert (counts / counts.sum() - 0.2).abs().max() < 0.005
    assert stratified_steps(3, 3, 1, 4, 0.7).tolist() == [1, 1, 1, 1]


def test_runs_have_one_step_each():
    step = torch.tensor([0, 0, 0, 1, 2, 2])
    assert _runs(step, 2) == [(0, 2), (2, 3), (3, 4), (4, 6)]


def test_mixture_log_prob_of_equal_weights():
    log_p = torch.tensor([[0.1, 0.3]]).log()
    assert mixture_log_prob(log_p, None).exp().item() == pytest.approx(0.2)
