"""λ proposed by a posterior: the bound, its gradients, the blocks of samples, what may stand beside it."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from di4c.contracts import Batch, Draws, Posterior
from di4c.diagnostics.posterior import posterior_diagnostics
from di4c.errors import SpecError
from di4c.losses.inputs import draw_inputs
from di4c.losses.objective import Di4C
from di4c.losses.proposal import ProposalOptions, score_term
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, Gate, TeacherStep
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.product_categorical import ProductCategorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.posteriors.transformer import Transformer
from di4c_plugins.posteriors.trunk import Trunk
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.samplers import TimeGrid, UniformTime
from tests.systems import tiny_student, tiny_teacher

LATENTS = {
    "gaussian": lambda: Gaussian(dim=3),
    "sobol": lambda: Gaussian(dim=2, points="sobol"),
    "uniform": lambda: Uniform(dim=2),
    "product-categorical": lambda: ProductCategorical(factors=3, values=4),
}


def data_term(weight=1.0, estimator=None):
    return DataTerm(weight, estimator or MonteCarlo(), Gate("constant", 1.0))


def make(latent, posterior=None, head="late", proposal=None, **options) -> Di4C:
    teacher = tiny_teacher()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        posterior = posterior or Transformer(latent, teacher.process, 6, 3, width=8, depth=1, heads=2)
        nn.init.normal_(posterior.parameters_of[-1].weight, std=0.5)
    settings = {
        "components": 3,
        "targets": 2,
        "time": UniformTime(),
        "teacher_step": TeacherStep("constant", size=0.1, substeps=2),
        "data": data_term(),
        "consistency": ConsistencyTerm(1.0, MonteCarlo(), min_time=0.1),
        "proposal": ProposalOptions(posterior, **(proposal or {})),
    }
    student = tiny_student(teacher, head, latent.dim)
    return Di4C(teacher, student, latent=latent, sampler=Ancestral(teacher.process), **(settings | options))


def batch(count=6) -> Batch:
    return Batch(Draws(9, count=count).integers(5, 6), torch.arange(count) % 3)


@pytest.mark.parametrize("head", ["late", "readout"])
@pytest.mark.parametrize("name", LATENTS)
def test_losses_do_not_depend_on_ranks(name, head):
    objective, whole = make(LATENTS[name](), head=head), batch()
    together = objective(whole, Draws(0, count=6), 0)
    part = objective(Batch(whole.x_0[2:], whole.cond[2:]), Draws(0, first=2, count=4), 0)
    for term, value in part.items():
        torch.testing.assert_close(value, together[term][2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LATENTS)
def test_each_sample_is_scored_under_its_own_draws(name):
    """Against one call of the student a sample, with the formula written out."""
    objective, examples = make(LATENTS[name]()), batch()
    draws = Draws(0, count=6)
    inputs = draw_inputs(objective.options, objective.teacher, objective.model, examples, draws)
    found, law = objective.loss(inputs), inputs.proposed.proposed
    samples = torch.cat([examples.x_0[:, None], inputs.target_samples], 1)
    nll = []
    for j in range(3):
        alone = objective.model.predict(inputs.student.x_t, inputs.t, examples.cond, law.lam[:, j])
        log_f = alone.log_prob_of(samples[:, j]).double() + law.log_ratio[:, j]
        nll.append(-(log_f.logsumexp(1) - math.log(3)))
    torch.testing.assert_close(found["data"].double(), nll[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["data_bound"], found["data"])
    of_targets = torch.stack(nll[1:]).mean(0) * (inputs.t >= 0.1)
    torch.testing.assert_close(found["consistency"].double(), of_targets, rtol=1e-4, atol=1e-4)


class Exact(Posterior):
    """The student's own posterior over the values of a single factor, found by enumeration."""

    def __init__(self, latent, student):
        super().__init__()
        self.latent, self.student = latent, (student,)

    @torch.no_grad()
    def forward(self, x, x_t, t, cond=None):
        atoms = torch.eye(self.latent.dim).expand(len(x), -1, -1)
        prediction = self.student[0].predict(x_t, t, cond, atoms)
        return torch.stack([prediction.log_prob_of(some) for some in x.unbind(1)], 1)


@pytest.mark.parametrize("components", [2, 5])
def test_with_the_exact_posterior_the_bound_is_the_likelihood(components):
    """Every weight p(x, λ)/q(λ | x) is p(x) then, for data and for samples of the target alike."""
    latent = ProductCategorical(factors=1, values=7)
    objective = make(latent, components=components)
    objective.posterior = Exact(latent, objective.model)
    objective.options = replace(objective.options, proposal=ProposalOptions(objective.posterior))
    inputs = draw_inputs(objective.options, objective.teacher, objective.model, batch(), Draws(0, count=6))
    found = objective.loss(inputs)
    atoms = torch.eye(7).expand(6, -1, -1)
    every = objective.model.predict(inputs.student.x_t, inputs.t, batch().cond, atoms)
    exact = math.log(7) - every.log_prob_of(batch().x_0).double().logsumexp(1)
    torch.testing.assert_close(found["data"].double(), exact, rtol=1e-5, atol=1e-4)
    of_targets = [math.log(7) - every.log_prob_of(x).double().logsumexp(1) for x in inputs.target_samples.unbind(1)]
    torch.testing.assert_close(found["consistency_correlated"].double(), sum(of_targets) / 2, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("components", [2, 3])
@pytest.mark.parametrize("b", [1.0, 0.3])
def test_the_score_term_is_the_gradient_of_the_expected_bound(components, b):
    """By enumeration of all draws of M λ of three values, for the parameters of q."""
    log_f = torch.tensor([-1.0, -3.0, -2.5], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    log_q = logits.log_softmax(-1)
    every = torch.tensor(list(itertools.product(range(3), repeat=components)))
    of_draw = log_q[every]
    terms = log_f[every] + b * (-math.log(3) - of_draw)
    probability = of_draw.sum(-1).exp()
    (expected,) = torch.autograd.grad((probability * terms.logsumexp(-1)).sum(), logits, retain_graph=True)
    weights = b * (-math.log(3) - of_draw)
    bound = (log_f[every] + weights + score_term(log_f[every] + weights, of_draw)[..., None]).logsumexp(-1)
    torch.testing.assert_close(bound, terms.logsumexp(-1))
    (found,) = torch.autograd.grad((probability.detach() * bound).sum(), logits)
    torch.testing.assert_close(found, expected)


def test_the_gradient_reaches_a_reparameterised_posterior_as_finite_differences_say():
    objective = make(Gaussian(dim=2), head="adaln", targets=0, teacher_step=None, consistency=None).double()
    objective.model.head.float()
    weight = objective.posterior.parameters_of[-1].bias

    def loss():
        return objective(batch(), Draws(1, count=6), 0)["loss"].double().mean()

    (gradient,) = torch.autograd.grad(loss(), weight)
    step = 3e-3
    for k in range(len(weight)):
        ends = []
        for sign in (1, -1):
            weight.data[k] += sign * step
            ends.append(float(loss().detach()))
            weight.data[k] -= sign * step
        assert gradient[k].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.05, abs=2e-3)


def test_free_bits_and_beta_with_one_draw_give_the_beta_vae():
    """The gradient for q of −E log p(x|λ) + β·max(KL, free): over many draws, b multiplies the KL's, and is 0 below."""
    options = ProposalOptions(nn.Identity(), beta=0.2, warmup=10, free_bits=1.0, free_steps=20)
    divergence = torch.tensor([0.5, 2.0])
    assert options.exponent(divergence, 5).tolist() == pytest.approx([0.0, 0.6])
    assert options.exponent(divergence, 15).tolist() == [0.0, 1.0]
    assert options.exponent(divergence, 20).tolist() == [1.0, 1.0]
    latent = Gaussian(dim=2)
    parameters = torch.tensor([[[0.5, -0.3, 0.2, -0.4]]], requires_grad=True)
    law = latent.proposal(parameters.expand(20000, -1, -1))
    sampled = -law.draw(1, Draws(0, count=20000)).log_ratio.mean()
    (of_draws,) = torch.autograd.grad(sampled, parameters)
    (of_divergence,) = torch.autograd.grad(latent.proposal(parameters).divergence().sum(), parameters)
    torch.testing.assert_close(of_draws, of_divergence, rtol=0.05, atol=0.03)


def test_the_gradient_for_the_student_weighs_its_components_by_their_importance():
    """Σ_m w̃_m ∇ log p(x | λ_m), w̃ ∝ p(x | λ_m) p(λ_m)/q(λ_m)."""
    objective = make(ProductCategorical(factors=3, values=4), targets=0, teacher_step=None, consistency=None)
    inputs = draw_inputs(objective.options, objective.teacher, objective.model, batch(), Draws(0, count=6))
    law = inputs.proposed.proposed
    log_p = inputs.student.log_prob_of(batch().x_0)
    importance = (log_p + law.log_ratio[:, 0]).softmax(1).detach()
    weight = objective.model.backbone.readout.linear.weight
    (expected,) = torch.autograd.grad(-(importance * log_p).sum(), weight, retain_graph=True)
    (found,) = torch.autograd.grad(objective.loss(inputs)["data"].sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gaussian", "uniform", "product-categorical"])
def test_what_depends_on_lambda_makes_the_posterior_learn_and_the_diagnostics_say_so(name):
    """A student whose λ matters, a posterior that starts at the law: a few steps, and KL rises, the bound falls."""
    latent = LATENTS[name]()
    objective = make(
        latent, head="adaln", components=8, targets=0, teacher_step=None, consistency=None, time=TimeGrid(points=[1.0])
    )
    with torch.no_grad():
        objective.posterior.parameters_of[-1].weight.mul_(0.05)
        objective.posterior.parameters_of[-1].bias.zero_()
        objective.model.head.project.weight.mul_(3.0)
    examples = Batch(torch.tensor([[0] * 6, [4] * 6]).repeat(8, 1), torch.zeros(16, dtype=torch.int64))
    before = objective.diagnostics(examples, Draws(0, count=16))
    assert before["posterior_collapsed"] == 1 and before["posterior_active"] == 0
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    losses = []
    for step in range(40):
        terms = objective(examples, Draws(step, count=16), step)
        losses.append(float(terms["loss"].mean().detach()))
        optimizer.zero_grad()
        terms["loss"].mean().backward()
        optimizer.step()
    after = objective.diagnostics(examples, Draws(0, count=16))
    assert after["posterior_kl_at_1_nats"] > 0.1 and after["posterior_active"] >= 1 and losses[-1] < losses[0] - 1


def test_diagnostics_count_the_dimensions_in_use():
    divergence = torch.tensor([[0.5, 0.0, 0.004], [0.7, 0.001, 0.0]])
    found = posterior_diagnostics(divergence)
    assert found["posterior_active"] == 1 and found["posterior_collapsed"] == 0
    assert found["posterior_kl_at_1_nats"] == pytest.approx(0.6025)


def test_the_teachers_trunk_serves_as_a_posterior():
    teacher = tiny_teacher()
    posterior = Trunk(Gaussian(dim=3), teacher, 6, width=8)
    objective = make(Gaussian(dim=3), posterior)
    objective(batch(), Draws(0, count=6), 0)["loss"].mean().backward()
    assert all(p.grad is not None for name, p in posterior.named_parameters() if "modulation" not in name)
    assert not any("readout" in name for name, _ in posterior.named_parameters())


def test_what_does_not_fit_is_refused():
    gaussian = Gaussian(dim=3)
    near = {"distillation": DistillationTerm(1.0, max_time=0.1)}
    for latent, options, told in [
        (gaussian, {"data": None}, "needs the data term"),
        (gaussian, {"data": data_term(estimator=ControlVariate())}, "ControlVariate takes λ of the prior"),
        (gaussian, near, "distillation_time"),
        (ProductCategorical(factors=3, values=4), {"components": 1}, "components ≥ 2"),
        (ProductCategorical(factors=2, values=3), {"components": 9}, "enumerated"),
    ]:
        with pytest.raises(SpecError, match=told):
            make(latent, **options)
    with pytest.raises(SpecError, match="has no family of posteriors"):
        Transformer(Categorical(atoms=4), tiny_teacher().process, 6, width=8, depth=1, heads=2)
    for bad in ({"beta": 1.5}, {"warmup": -1}, {"free_bits": -0.1}):
        with pytest.raises(SpecError, match="objective.proposal"):
            ProposalOptions(nn.Identity(), **bad)
