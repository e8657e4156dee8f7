"""Di4C as a whole: terms, regions, independence of ranks, gradients, and learning a correlated law by enumeration."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from di4c.contracts import Batch, Statistics
from di4c.diagnostics.mixture import effective_components
from di4c.draws import Draws
from di4c.engine.report import Reporter
from di4c.errors import SpecError
from di4c.losses.objective import Di4C
from di4c.losses.pretraining import NELBO
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, Gate, TeacherStep
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.samplers import LowDiscrepancyTime, SplitTime, TimeGrid, UniformTime
from tests.systems import tiny_student, tiny_teacher

ESTIMATORS = {"monte-carlo": MonteCarlo(), "control-variate": ControlVariate()}


def make(head="late", estimator="control-variate", latent=None, **options) -> Di4C:
    """All three terms, distillation if some time is below 0.1; with options."""
    teacher = tiny_teacher()
    latent = latent or Uniform()
    settings = {
        "components": 3,
        "targets": 2,
        "time": UniformTime(),
        "teacher_step": TeacherStep("constant", size=0.1, substeps=2),
        "data": DataTerm(1.0, ESTIMATORS[estimator], Gate("sigmoid", 1.0)),
        "consistency": ConsistencyTerm(1.0, ESTIMATORS[estimator], min_time=0.1),
    }
    near = DistillationTerm(2.0, max_time=0.1)
    settings["distillation"] = (
        near if "distillation_time" in options or near.due(options.get("time", UniformTime()).span) else None
    )
    student = tiny_student(teacher, head, latent.dim)
    settings["sampler"] = Ancestral(teacher.process)
    return Di4C(teacher, student, latent=latent, **(settings | options))


def batch(count=6) -> Batch:
    return Batch(Draws(9, count=count).integers(5, 6), torch.arange(count) % 3)


@pytest.mark.parametrize("head", ["late", "token", "readout"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_losses_do_not_depend_on_ranks(head, estimator):
    objective, whole = make(head, estimator), batch()
    together = objective(whole, Draws(0, count=6), 0)
    for a, b in [(0, 2), (2, 6)]:
        part = objective(Batch(whole.x_0[a:b], whole.cond[a:b]), Draws(0, first=a, count=b - a), 0)
        for name, value in part.items():
            torch.testing.assert_close(value, together[name][a:b], rtol=1e-4, atol=1e-4)


class Uneven(Ancestral):
    """Asks the denoiser twice more where the first example's t is late."""

    evaluations = 3

    def step(self, denoiser, x_t, t, s, cond, draws):
        x_s = super().step(denoiser, x_t, t, s, cond, draws)
        for _ in range(2 if t[0] > 0.5 else 0):
            denoiser(x_s, s, cond)
        return x_s


def test_the_teacher_is_called_equally_often_whatever_the_times():
    """Ranks that share its weights wait for each other at every call; the first sub-step's first call is that of the data term."""
    objective, calls = make(distillation=None), []
    options = objective.options
    objective.options = replace(
        options, sampler=Uneven(objective.teacher.process), consistency=replace(options.consistency, min_time=0.0)
    )
    predict = objective.teacher.predict
    objective.teacher.predict = lambda x, t, cond=None: (calls.append(float(t[0])), predict(x, t, cond))[1]
    first_times, counts = set(), set()
    for seed in range(8):
        calls.clear()
        objective(batch(), Draws(seed, count=6), 0)
        first_times.add(calls[0] > 0.5)
        counts.add(len(calls))
    assert first_times == {False, True} and counts == {2 * Uneven.evaluations}


def test_the_loss_is_the_sum_of_its_terms():
    terms = make()(batch(), Draws(1, count=6), 0)
    torch.testing.assert_close(terms["loss"], terms["data"] + terms["consistency"] + terms["distillation"])
    assert terms["loss"].shape == (6,) and terms["loss"].isfinite().all()


def test_regions_split_the_examples():
    objective = make(time=TimeGrid(points=[0.05, 0.6]))
    draws = Draws(2, count=40)
    t = TimeGrid(points=[0.05, 0.6]).sample(draws.child("t"))[0]
    terms = objective(batch(40), draws, 0)
    assert (terms["consistency"][t < 0.1] == 0).all() and (terms["distillation"][t > 0.1] == 0).all()
    assert terms["distillation"][t < 0.1].max() > 0


def test_a_split_law_computes_one_side_only():
    objective = make(time=SplitTime(split=0.1, probability=0.5))
    seen = {frozenset(objective(batch(), Draws(step, count=6), step)) for step in range(12)}
    sides = [("distillation" in names, "consistency" in names) for names in seen]
    assert sorted(sides) == [(False, True), (True, False)]


def test_consistency_on_some_steps_keeps_the_expected_loss():
    always = make(data=None, distillation=DistillationTerm(1.0, max_time=1.0))
    sometimes = make(
        data=None,
        distillation=DistillationTerm(1.0, max_time=1.0),
        consistency=ConsistencyTerm(1.0, ESTIMATORS["control-variate"], min_time=0.1, probability=0.25),
    )
    steps = [(always(batch(), Draws(k, count=6), k), sometimes(batch(), Draws(k, count=6), k)) for k in range(40)]
    seen = [(a["consistency"], b["consistency"]) for a, b in steps if "consistency" in b]
    assert 2 <= len(seen) <= 20  # 10 expected of 40
    for a, b in seen:
        torch.testing.assert_close(b, 4 * a, rtol=1e-4, atol=1e-4)


def test_a_step_on_which_no_term_is_due_is_a_step():
    """Its loss is 0, and a backward pass goes through; the consistency term alone, computed on a quarter of the steps."""
    objective = make(
        data=None,
        distillation=None,
        consistency=ConsistencyTerm(1.0, ESTIMATORS["control-variate"], min_time=0.1, probability=0.25),
    )
    due = set()
    for step in range(12):
        terms = objective(batch(), Draws(step, count=6), step)
        terms["loss"].mean().backward()
        due.add("consistency" in terms)
        assert terms["loss"].shape == (6,) and terms["loss"].dtype == torch.float32
        assert "consistency" in terms or (terms["loss"] == 0).all()
    assert due == {True, False} and all(p.grad.isfinite().all() for p in objective.model.head.parameters())


def test_distillation_at_times_of_its_own():
    objective = make(
        distillation_time=UniformTime(low=0.01, high=0.2), distillation_copies=4, time=UniformTime(low=0.5)
    )
    terms = objective(batch(), Draws(0, count=6), 0)
    assert (
        terms["distillation"].shape == (6,) and terms["distillation"].min() >= 0 and terms["consistency"].shape == (6,)
    )


def test_gradient_reaches_the_student_only():
    objective = make()
    objective(batch(), Draws(0, count=6), 0)["loss"].mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.model.head.parameters())
    assert all(p.grad is None for p in objective.teacher.backbone.parameters())
    assert not any("teacher" in name for name, _ in objective.named_parameters())
    assert {id(p) for p in objective.parameters()} == {id(p) for p in objective.model.parameters()}


def test_a_student_equal_to_its_teacher_has_no_distillation_loss():
    objective = make(data=None, consistency=None, distillation=DistillationTerm(1.0))
    for parameter in objective.model.head.project.parameters():
        torch.nn.init.zeros_(parameter)
    assert objective(batch(), Draws(0, count=6), 0)["loss"].abs().max() < 1e-4


def test_diagnostics_tell_a_mixture_from_a_product():
    objective = make()
    assert objective.diagnostics(batch(), Draws(0, count=6))["mixture_collapsed"] == 0
    for parameter in objective.model.head.project.parameters():
        torch.nn.init.zeros_(parameter)
    found = objective.diagnostics(batch(), Draws(0, count=6))
    assert found["mixture_collapsed"] == 1 and abs(found["mutual_information_nats"]) < 1e-4
    assert abs(found["effective_components"] - 64) < 0.1


def learned(scale: float, head_rate: float) -> Di4C:
    """A few steps on correlated data; the head starts with components that differ by `scale`, its rate times head_rate."""
    teacher = tiny_teacher(num_classes=None)
    student = tiny_student(teacher, "late")
    with torch.no_grad():
        student.head.project.weight.mul_(scale)
    made = Di4C(
        teacher,
        student,
        latent=Uniform(),
        sampler=Ancestral(teacher.process),
        components=4,
        time=TimeGrid(points=[1.0]),
        data=DataTerm(1.0, MonteCarlo(), Gate("constant", 1.0)),
    )
    head = set(student.head.parameters())
    groups = [
        {"params": [*head], "lr": 5e-3 * head_rate},
        {"params": [p for p in student.parameters() if p not in head]},
    ]
    optimizer = torch.optim.Adam(groups, lr=5e-3)
    x_0 = torch.tensor([[0] * 6, [2] * 6]).repeat(8, 1)
    for step in range(40):
        optimizer.zero_grad()
        made(Batch(x_0), Draws(step, count=16), step)["loss"].mean().backward()
        optimizer.step()
    return made


def test_a_trained_student_that_collapsed_is_told_from_a_healthy_one(tmp_path, capsys):
    """Both trained alike; one on a head that starts at the saddle and hardly moves. Through the report of a run."""
    found = {}
    for name, options in {"healthy": (1.0, 1.0), "collapsed": (1e-4, 1e-6)}.items():
        made = learned(*options)
        found[name] = made.diagnostics(Batch(torch.zeros(8, 6, dtype=torch.long)), Draws(0, count=8))
        (tmp_path / name).mkdir()
        reporter = Reporter(tmp_path / name, SimpleNamespace(enabled=False), steps=40, batch_size=16)
        for step in (20, 40):
            reporter.report(step, {}, found[name], made.warnings(found[name], step / 40))
    assert found["healthy"]["total_correlation_nats"] > 0.3 > 0.05 > found["collapsed"]["mutual_information_nats"]
    assert abs(found["collapsed"]["total_correlation_nats"]) < 0.05
    assert not (tmp_path / "healthy/warnings.txt").exists()
    assert (tmp_path / "collapsed/warnings.txt").read_text().count("mixture-collapsed") == 1
    told = capsys.readouterr()
    assert (told.out + told.err).count(
        "warning: step 20: the mixture has collapsed"
    ) == 1 and "warning: step 40" not in told.out + told.err


def test_effective_components_by_hand():
    joint = torch.tensor([[[0.0, 0.0, -1e4], [0.0, -1e4, -1e4]]])  # two samples: two components, then one, explain it
    found = effective_components(Statistics(torch.full((3,), 1 / 3).log(), joint=joint))
    torch.testing.assert_close(found, torch.tensor([1.5]))
    terms = make()(batch(), Draws(0, count=6), 0)
    assert (terms["data_effective_components"] >= 1).all() and (
        terms["consistency_effective_components"] <= 3 + 1e-4
    ).all()


def test_a_mixture_learns_in_one_step_what_a_product_cannot():
    """Data on {000000, 222222}: one step of a product model errs by half of its mass, two components do not."""
    torch.manual_seed(0)
    teacher = tiny_teacher(num_classes=None)
    latent = Categorical(atoms=2)
    student = tiny_student(teacher, "late", 2)
    objective = Di4C(
        teacher,
        student,
        latent=latent,
        sampler=Ancestral(teacher.process),
        components=2,
        time=TimeGrid(points=[1.0]),
        data=DataTerm(1.0, MonteCarlo(), Gate("constant", 1.0)),
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    x_0 = torch.tensor([[0] * 6, [2] * 6]).repeat(8, 1)
    for step in range(150):
        loss = objective(Batch(x_0), Draws(step, count=16), step)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < math.log(2) + 0.1  # the entropy of the data is log 2; a product model cannot go below 6·log 2


def test_pretraining_bound_is_rank_independent_and_trains():
    objective = NELBO(tiny_teacher(), time=LowDiscrepancyTime(), label_dropout=0.3)
    whole = batch()
    together = objective(whole, Draws(0, count=6), 0)["loss"]
    half = objective(Batch(whole.x_0[3:], whole.cond[3:]), Draws(0, first=3, count=3), 0)["loss"]
    torch.testing.assert_close(half, together[3:], rtol=1e-4, atol=1e-4)
    together.mean().backward()
    assert all(p.grad is not None for p in objective.model.readout.parameters())


def test_missing_pieces_are_named():
    with pytest.raises(SpecError, match="at least one of"):
        make(data=None, consistency=None, distillation=None)
    with pytest.raises(SpecError, match="teacher_step"):
        make(teacher_step=None)


@pytest.mark.parametrize("copies", [1, 2])
def test_the_teacher_is_asked_once_at_x_t(copies, monkeypatch):
    """Its marginals at x_t and its first step towards x_u are the same question."""
    objective = make(
        x_u="each" if copies > 1 else "shared", consistency=ConsistencyTerm(1.0, ESTIMATORS["control-variate"])
    )
    asked, predict = [], objective.teacher.predict

    def counting(x_t, t, cond=None):
        asked.append(len(x_t))
        return predict(x_t, t, cond)

    monkeypatch.setattr(objective.teacher, "predict", counting)
    objective(batch(), Draws(0, count=6), 0)
    assert asked == [6, 6 * copies]  # at x_t; after the first of two sub-steps


def test_trouble_b02_a_region_that_includes_its_end_is_due_at_it():
    """A grid whose least time is `max_time` itself: distillation holds there, and so it has to be computed."""
    objective = make(
        time=TimeGrid(points=[0.25, 0.75]),
        distillation=DistillationTerm(1.0, max_time=0.25, max_time_inclusive=True),
        consistency=None,
        data=None,
    )
    found = [objective(batch(), Draws(seed, count=6), 0) for seed in range(4)]
    assert all("distillation" in terms for terms in found)
    assert sum(float(terms["distillation"].detach().sum()) for terms in found) > 0


@pytest.mark.parametrize(("max_time", "inclusive", "interval", "due"), [
    (0.25, True, (0.25, 1.0), True), (0.25, False, (0.25, 1.0), False), (0.25, False, (0.2, 1.0), True), (0.25, True, (0.3, 1.0), False),
])  # fmt: skip
def test_trouble_b02_what_is_due_is_what_may_hold(max_time, inclusive, interval, due):
    term = DistillationTerm(1.0, max_time=max_time, max_time_inclusive=inclusive)
    assert term.due(interval) == due
    assert bool(term.holds(torch.tensor(interval[0]))) == due


class WritesInPlace(Ancestral):
    """Writes x_s into x_t, and asks again."""

    evaluations = 2

    def step(self, denoiser, x_t, t, s, cond, draws):
        x_t.copy_(self.process.posterior(x_t, denoiser(x_t, t, cond), t, (t + s) / 2, draws.child("first")))
        return self.process.posterior(x_t, denoiser(x_t, t, cond), (t + s) / 2, s, draws.child("second"))


@pytest.mark.parametrize("x_u", ["shared", "each"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_trouble_b17_a_sampler_that_writes_into_x_t_gets_the_prediction_of_what_it_passes(estimator, x_u):
    objective = make(
        estimator=estimator, x_u=x_u, teacher_step=TeacherStep("constant", size=0.5), time=TimeGrid(points=[0.9])
    )
    objective.options = replace(objective.options, sampler=WritesInPlace(objective.teacher.process))
    asked, predict = [], objective.teacher.predict
    objective.teacher.predict = lambda x, t, cond=None: (asked.append(x.clone()), predict(x, t, cond))[1]
    whole = batch(16)
    objective(whole, Draws(0, count=16), 0)
    masked = [int((x == objective.teacher.process.mask_index).sum()) / len(x) for x in asked]
    assert masked[-1] < masked[0]  # the second call's states are those of the first step, not x_t again
    assert len(asked) == 2


@pytest.mark.parametrize("x_u", ["shared", "each"])
@pytest.mark.parametrize("head", ["late", "readout"])
def test_losses_in_inference_mode_are_those_without_gradient(head, x_u):
    objective = make(head, x_u=x_u, sampler=WritesInPlace(tiny_teacher().process))
    with torch.no_grad():
        expected = objective(batch(), Draws(0, count=6), 0)
    with torch.inference_mode():
        found = objective(batch(), Draws(0, count=6), 0)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_marginals_that_no_term_needs_are_not_read(monkeypatch):
    """Monte Carlo looks at samples alone: neither the teacher's marginals nor the target's are read."""
    objective, read = make(estimator="monte-carlo", distillation=None), []
    monkeypatch.setattr("di4c.mixture.marginals.Marginals.probs", lambda self, *rest: read.append(self))
    objective(batch(), Draws(1, count=6), 0)["loss"].mean().backward()
    assert not read
