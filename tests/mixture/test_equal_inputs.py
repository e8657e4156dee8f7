"""Examples with equal inputs share one evaluation: the losses and gradients of evaluating each, by fewer rows."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from di4c.contracts import Batch
from di4c.draws import Draws
from di4c.losses import inputs
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DistillationTerm
from di4c.mixture import equal_inputs as module
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.times.samplers import TimeGrid
from tests.losses.test_objective import batch, make
from tests.mixture.mixture_cases import Opaque

SIZE = 12
TIMES = TimeGrid(points=[0.5, 1.0, 1.0])


def system(head: str, estimator: str, opaque: bool = False, **options) -> Di4C:
    """K = 4 atoms, enumerated; times of which two thirds are 1."""
    given = {"time": TIMES, "components": 4, "targets": 4} | options
    objective = make(head, estimator, Categorical(atoms=4, weights=[0.1, 0.2, 0.3, 0.4]), **given).double()
    if opaque:
        objective.model.backbone.readout = Opaque(objective.model.backbone.readout)
    objective.teacher.network.double()
    return objective


def losses_and_gradients(objective: Di4C, of: Batch) -> tuple[dict, list]:
    found = objective(of, Draws(5, count=len(of.x_0)), 0)
    objective.zero_grad()
    found["loss"].mean().backward()
    return {name: value.detach() for name, value in found.items()}, [p.grad for p in objective.parameters()]


def compare(objective: Di4C, of: Batch, monkeypatch) -> dict:
    rows = []
    objective.model.backbone.register_forward_hook(lambda _, given, out: rows.append(len(given[0])))
    losses, gradients = losses_and_gradients(objective, of)
    with monkeypatch.context() as patched:
        patched.setattr(inputs, "equal_inputs", lambda *_: None)
        expected, truth = losses_and_gradients(objective, of)
    half = len(rows) // 2
    assert sum(rows[:half]) < sum(rows[half:])
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-9, atol=1e-9, msg=name)
    for ours, theirs in zip(gradients, truth, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    return losses


@pytest.mark.parametrize("head", ["readout", "adaln", "late", "token"])
@pytest.mark.parametrize("estimator", ["monte-carlo", "control-variate"])
@pytest.mark.parametrize("opaque", [False, True], ids=["affine", "generic"])
def test_losses_and_gradients_are_those_of_evaluating_every_example(head, estimator, opaque, monkeypatch):
    """Data, consistency and distillation; labelled, so that at t = 1 there is an input a class; a few rows a chunk."""
    objective = system(head, estimator, opaque, chunk_bytes=1000, distillation=DistillationTerm(2.0, max_time=2.0))
    compare(objective, batch(SIZE), monkeypatch)


@pytest.mark.parametrize("options", [
    {"time": TimeGrid(points=[1.0])},
    {"time": TimeGrid(points=[1.0]), "chunk_bytes": 1},
    {"components_at_a_time": 3},
    {"targets": 2, "x_u": "each"},
    {"consistency": None, "distillation": None},
    {"data": None},
])  # fmt: skip
@pytest.mark.parametrize("labelled", [False, True])
def test_whatever_the_terms(options, labelled, monkeypatch):
    of = batch(SIZE)
    compare(system("readout", "monte-carlo", **options), of if labelled else Batch(of.x_0), monkeypatch)


def test_at_time_one_the_student_is_evaluated_once_a_class():
    objective = system("readout", "monte-carlo", time=TimeGrid(points=[1.0]), consistency=None, distillation=None)
    seen = []
    objective.model.backbone.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    objective(batch(SIZE), Draws(5, count=SIZE), 0)
    assert [len(x_t) for x_t in seen] == [3]


def test_no_other_law_of_lambda_shares():
    objective = make("readout", "monte-carlo", time=TIMES)
    found = inputs.draw_inputs(objective.options, objective.teacher, objective.model, batch(), Draws(0, count=6))
    assert found.student.sharing is None


def test_active_dropout_keeps_examples_apart():
    """Its masks belong to examples; in eval mode there are none."""
    objective = system(
        "readout", "monte-carlo", consistency=ConsistencyTerm(1.0, system("late", "monte-carlo").loss.data.estimator)
    )
    objective.model.backbone.blocks[0].register_module("extra", nn.Dropout(0.1))
    for training in (True, False):
        objective.train(training)
        drawn = inputs.draw_inputs(objective.options, objective.teacher, objective.model, batch(), Draws(0, count=6))
        assert (drawn.student.sharing is None) == training
    objective.train().model.backbone.blocks[0].extra.p = 0.0
    drawn = inputs.draw_inputs(objective.options, objective.teacher, objective.model, batch(), Draws(0, count=6))
    assert drawn.student.sharing is not None


def test_which_examples_are_alike():
    x_t = torch.tensor([[1, 2], [0, 0], [1, 2], [1, 2], [0, 0]])
    t, cond = torch.tensor([1.0, 0.5, 1.0, 0.5, 0.5]), torch.tensor([0, 1, 0, 0, 1])
    found = module.equal_inputs(x_t, t, cond)
    groups = {tuple((found.of == g).nonzero().flatten().tolist()) for g in range(3)}
    assert groups == {(0, 2), (1, 4), (3,)} and sorted(found.counts) == [1, 2, 2]
    assert {int(k) for k in found.first} == {0, 1, 3} and found.most == 3
    assert module.equal_inputs(x_t, t, torch.arange(5)) is None


def test_the_ranks_largest_number_of_inputs_decides_the_calls(monkeypatch):
    """Another rank has more inputs, or no two that are alike: then nothing is shared here either."""
    x_t, t = torch.zeros(4, 2, dtype=torch.int64), torch.ones(4)
    for most in (3, 4):
        monkeypatch.setattr(module, "_largest_of_ranks", lambda number, device, most=most: most)
        found = module.equal_inputs(x_t, t, None)
        assert (found is None) == (most == 4)
    objective = system(
        "readout", "monte-carlo", chunk_bytes=1, time=TimeGrid(points=[1.0]), consistency=None, distillation=None
    )
    calls = {}
    for most in (3, 5, SIZE - 1):
        monkeypatch.setattr(module, "_largest_of_ranks", lambda number, device, most=most: most)
        drawn = inputs.draw_inputs(
            objective.options, objective.teacher, objective.model, batch(SIZE), Draws(5, count=SIZE)
        )
        counted = []
        hook = objective.model.head.modulator.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        with torch.no_grad():
            objective.loss(replace(drawn, teacher=None))
        hook.remove()
        calls[most] = len(counted)
    assert calls[3] < calls[5] < calls[SIZE - 1]
