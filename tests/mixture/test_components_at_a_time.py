"""Splitting the batch over λ: nothing changes but the memory."""

import pytest
import torch

from di4c.contracts import Batch, Draws
from di4c.engine.dropout import insert_example_dropout
from di4c.errors import SpecError
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, Gate, TeacherStep
from di4c.mixture import student as students
from di4c.mixture.student import MixtureStudent
from di4c.planning.live import LiveBytes
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.heads.token import Token
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.teachers.denoiser import DenoiserTeacher
from di4c_plugins.times.samplers import UniformTime
from tests.systems import tiny_student, tiny_teacher

B = 3
ESTIMATORS = {"monte-carlo": MonteCarlo, "control-variate": ControlVariate}


def objective_of(size, head="token", estimator="control-variate", components=5, dropout=0.0, targets=3):
    teacher = tiny_teacher()
    student = tiny_student(teacher, head)
    for block in student.backbone.blocks:
        block.dropout = torch.nn.Dropout(dropout)
    made = ESTIMATORS[estimator]()
    return Di4C(
        teacher, student, latent=Uniform(), sampler=Ancestral(teacher.process), components=components, targets=targets,
        time=UniformTime(), teacher_step=TeacherStep("constant", size=0.1), data=DataTerm(1.0, made, Gate("constant", 1.0)),
        consistency=ConsistencyTerm(1.0, made), distillation=DistillationTerm(1.0), components_at_a_time=size, chunk_bytes=2000,
    )  # fmt: skip


def loss_and_gradient(objective):
    batch = Batch(Draws(5, count=B).integers(5, 6), Draws(6, count=B).integers(3))
    examples = insert_example_dropout(objective.double())
    examples.count = B
    torch.manual_seed(4)
    loss = objective(batch, Draws(7, count=B), 0)["loss"]
    loss.mean().backward()
    return loss.detach(), {name: p.grad for name, p in objective.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("head", "size"), [("token", 1), ("token", 2), ("adaln", 3), ("late", 2), ("readout", 1), ("token", 9)]
)
def test_values_and_gradients_are_those_of_all_components_together(head, size, estimator):
    loss, gradient = loss_and_gradient(objective_of(None, head, estimator))
    found, split = loss_and_gradient(objective_of(size, head, estimator))
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-5)
    assert gradient.keys() == split.keys()
    for name, expected in gradient.items():
        torch.testing.assert_close(
            split[name], expected, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_second_pass_repeats_the_dropout_of_the_first(monkeypatch):
    loss, gradient = loss_and_gradient(objective_of(2, dropout=0.4))
    monkeypatch.setattr(students, "recomputed", lambda f, *arguments, **_: f(*arguments))
    found, kept = loss_and_gradient(objective_of(2, dropout=0.4))
    torch.testing.assert_close(found, loss)
    for name, expected in kept.items():
        torch.testing.assert_close(gradient[name], expected)
    without, _ = loss_and_gradient(objective_of(2))
    assert (without - loss).abs().max() > 1e-3


def peak(components, size):
    """The most bytes that exist in a step on one example, beside the weights."""
    process = Absorbing(5)
    torch.manual_seed(0)
    backbone = DiT(24, process.num_states, width=32, depth=6, heads=2)
    teacher = DenoiserTeacher(process, 24, backbone=backbone, parameterisation=Subs(process)).freeze()
    trained = teacher.student_backbone()
    student = MixtureStudent(
        trained, Token(1, trained), parameterisation=teacher.parameterisation, num_states=process.num_states
    )
    objective = Di4C(
        teacher, student, latent=Uniform(), sampler=Ancestral(process), components=components, time=UniformTime(),
        data=DataTerm(1.0, MonteCarlo(), Gate("constant", 1.0)), components_at_a_time=size, chunk_bytes=2000,
    )  # fmt: skip
    with LiveBytes(objective) as live:
        objective(Batch(torch.zeros(1, 24, dtype=torch.int64)), Draws(0), 0)["loss"].mean().backward()
    return live.peak_without_gradients


def test_sixty_four_components_fit_where_eight_do():
    assert peak(64, 4) < peak(8, None) < 0.2 * peak(64, None)


def test_a_size_below_one_is_refused():
    with pytest.raises(SpecError, match="components_at_a_time: at least 1"):
        objective_of(0)
