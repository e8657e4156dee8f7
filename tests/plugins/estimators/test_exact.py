"""The exact estimator against the loss written out: every x, every atom of λ."""

import itertools
import math

import pytest
import torch

from di4c.contracts import Batch, Draws, Prediction
from di4c.errors import SpecError
from di4c.losses.inputs import draw_inputs
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, Gate, TeacherStep
from di4c.mixture import every_sample as module
from di4c.mixture.every_sample import every_sample
from di4c.mixture.sums import Query, statistics
from di4c.testing import check_estimator
from di4c_plugins.estimators.exact import Exact
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.samplers import TimeGrid
from tests.systems import tiny_student, tiny_teacher

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MASKED = torch.tensor([[2, 2], [2, 1]])


def mixture(seed: int) -> Prediction:
    """Three components over two positions of {0, 1, mask}, the second example with one visible token."""
    logits = Draws(seed, count=2).normal(3, 2, 3).requires_grad_()
    prediction = Prediction.from_logits(logits, MASKED, Subs(Absorbing(2)))
    return Prediction(**{**vars(prediction), "log_weights": WEIGHTS.log()})


def brute_force(prediction: Prediction, example: int) -> dict[tuple, torch.Tensor]:
    """x → p(x) by loops; a visible token is certain."""
    p = prediction.log_probs(torch.arange(4)).exp().view(2, 2, 3, 3)  # [B, D, M, S]
    return {
        x: sum(WEIGHTS[m] * math.prod(p[example, d, m, x[d]] for d in range(2)) for m in range(3))
        for x in itertools.product(range(2), repeat=2)
    }


def exact_loss(student: Prediction, target: Prediction) -> torch.Tensor:
    samples, log_law = every_sample(target)
    query = Query(Exact.needs, samples, target, log_law=log_law)
    return sum(Exact()(statistics(student, [query])[0]))


def test_it_is_an_estimator():
    check_estimator(Exact())


def test_the_law_is_that_of_the_target():
    samples, log_law = every_sample(mixture(0))
    assert samples.shape == (2, 4, 2)
    for b in range(2):
        wanted = brute_force(mixture(0), b)
        for x, value in zip(samples[b].tolist(), log_law[b].exp().tolist(), strict=True):
            assert abs(value - wanted[tuple(x)].item()) < 1e-12


def test_value_and_gradient_by_brute_force():
    student, target = mixture(1), mixture(0)
    loss = exact_loss(student, target)
    again = mixture(1)
    wanted = []
    for b in range(2):
        q, p = brute_force(target, b), brute_force(again, b)
        wanted.append(sum(q[x].detach() * (q[x].detach() / p[x]).log() for x in q if q[x] > 0))
    torch.testing.assert_close(loss, torch.stack(wanted), rtol=1e-10, atol=1e-12)
    (found,) = torch.autograd.grad(loss.sum(), student.features)
    (expected,) = torch.autograd.grad(sum(wanted), again.features)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert found.abs().max() > 1e-3


def test_a_student_equal_to_its_target_has_no_loss():
    assert exact_loss(mixture(0), mixture(0)).abs().max() < 1e-12


def test_too_large_a_space_is_refused():
    with pytest.raises(SpecError, match="small spaces"):
        every_sample(Prediction.from_logits(torch.zeros(1, 8, 5), torch.zeros(1, 8, dtype=torch.long)))
    assert module.MAX_SAMPLES < 5**8


def objective(estimator, *, targets: int = 3, components: int = 3) -> Di4C:
    """Both terms by one estimator, three atoms of λ, two data states at three positions."""
    teacher = tiny_teacher(positions=3, data_states=2, num_classes=None)
    student = tiny_student(teacher, latent_dim=3).double()
    teacher.backbone.double()
    return Di4C(
        teacher, student, latent=Categorical(atoms=3), sampler=Ancestral(teacher.process), components=components,
        time=TimeGrid(points=[1.0]), targets=targets, teacher_step=TeacherStep("constant", size=0.5),
        data=DataTerm(1.0, estimator, Gate("constant", 1.0)), consistency=ConsistencyTerm(1.0, estimator),
    )  # fmt: skip


def test_the_objective_sums_over_every_x_of_the_target():
    """As Monte Carlo's mean over many draws of the target's samples, less its entropy; the data term is the same."""
    batch = Batch(torch.tensor([[0, 1, 1]]))
    exact, sampled = objective(Exact()), objective(MonteCarlo(), targets=3)
    sampled.load_state_dict(exact.state_dict())
    copies = 4000
    many = Batch(batch.x_0.expand(copies, -1))
    with torch.no_grad():
        found = exact(many, Draws(0, count=copies), 0)
        other = sampled(many, Draws(0, count=copies), 0)
    torch.testing.assert_close(found["data"], other["data"])
    # the same x_u in both, so that the difference is the samples' noise and the entropy of the target at x_u
    gap = other["consistency"] - found["consistency"]
    entropy = _target_entropies(exact, many, Draws(0, count=copies))
    error = gap - entropy
    assert abs(error.mean()) < 5 * error.std() / copies**0.5 and error.std() > 1e-3


def _target_entropies(objective: Di4C, batch: Batch, draws: Draws) -> torch.Tensor:
    with torch.no_grad():
        scene = draw_inputs(objective.options, objective.teacher, objective.model, batch, draws)
    _, log_law = every_sample(scene.target.prediction)
    return -(log_law.exp() * log_law).sum(-1)


def test_drawn_components_are_refused():
    for options in ({"components": 2}, {"targets": 2}):
        with pytest.raises(SpecError, match="every λ"):
            objective(Exact(), **options)
