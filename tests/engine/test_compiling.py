"""Compiled backbones give the same numbers and keep their parameters' names; a step has no graph break."""

import csv
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch._dynamo

import di4c
from di4c.contracts import Batch, Draws
from di4c.engine.compiling import compile_backbones
from di4c.engine.dropout import insert_example_dropout
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, Gate, TeacherStep
from di4c.mixture.student import MixtureStudent
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.heads.adaln import Late
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.teachers.denoiser import DenoiserTeacher
from di4c_plugins.times.samplers import UniformTime
from tests.systems import HEADS

TOP = Path(__file__).parents[2]
SHORT = ["steps=6", "schedule.warmup=1", "log_every=1", "batch_size=8", "diagnostics_every=0"]


def trained(folder: Path, name: str, *settings: str) -> list[float]:
    """The losses of six steps of the digits' spec of that name, with settings changed."""
    changes = [part for setting in (*(f"train.{s}" for s in SHORT), *settings) for part in ("--set", setting)]
    command = [sys.executable, "tools/train.py", "--spec", f"tools/specs/digits-{name}.yaml", *changes]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "metrics.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_a_compiled_run_has_the_losses_of_an_eager_one_and_its_model_draws_the_same_samples(tmp_path):
    """Inductor on the CPU, from spec to tokens: the student's and the teacher's networks, forward and backward."""
    teacher = tmp_path / "teacher"
    trained(teacher, "teacher", f"train.run={teacher}", "teacher.backbone.dropout=0")
    eager, compiled = (
        trained(
            run,
            "student",
            f"train.run={run}",
            f"teacher.run={teacher}",
            f"train.compile={str(run.name == 'compiled').lower()}",
        )
        for run in (tmp_path / "eager", tmp_path / "compiled")
    )
    assert len(eager) == 6 and compiled == pytest.approx(eager, rel=1e-4)
    tokens, same = (
        di4c.load(tmp_path / "eager", device="cpu", compile=compile).sample(4, steps=2, cond=7, seed=0)
        for compile in (False, True)
    )
    # a draw between two states may go the other way
    assert tokens.shape == (4, 64) and (tokens == same).float().mean() > 0.95


def student() -> MixtureStudent:
    torch.manual_seed(0)
    backbone = DiT(6, 5, width=16, depth=2, heads=2)
    torch.nn.init.normal_(backbone.readout.linear.weight)
    return MixtureStudent(backbone, Late(1, backbone, blocks=1), parameterisation=Subs(Absorbing(4)), num_states=5)


@pytest.mark.slow
def test_the_same_features_and_names():
    plain, compiled = student(), student()
    names = [name for name, _ in compiled.named_parameters()]
    assert compile_backbones(compiled, compiled, backend="aot_eager") == 1
    for components in (1, 3):
        arguments = torch.full((2, 6), 4), torch.ones(2), None, torch.rand(2, components, 1)
        ours, theirs = compiled.predict(*arguments).features, plain.predict(*arguments).features
        torch.testing.assert_close(ours, theirs)
        ours.square().sum().backward(), theirs.square().sum().backward()
    for (name, p), q in zip(compiled.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    assert [name for name, _ in compiled.named_parameters()] == names == list(compiled.state_dict())


def test_what_is_compiled_is_a_block_that_repeats_or_the_backbone(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: seen.append((self, options)))
    made, once = student(), DiT(6, 5, width=16, depth=1, heads=2)
    assert compile_backbones(made) == compile_backbones(once) == 1
    options = {"backend": "inductor", "options": {"fallback_random": True}}
    assert seen == [(block, options) for block in made.backbone.blocks] + [(once, options)]


@pytest.mark.parametrize("backbone", ["dit", "mdlm-dit"])
def test_copies_of_a_block_are_compiled_once(backbone):
    """As many graphs for six blocks as for two."""
    graphs = []
    for depth in (2, 6):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        objective = objective_of(backbone, "token", depth=depth)
        compile_backbones(objective, objective.teacher.network, backend="eager")
        losses_and_gradients(objective, once=True)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] == graphs[1]


SYSTEMS = [
    ("dit", "token"),
    ("dit", "adaln"),
    ("dit", "late"),
    ("dit", "readout"),
    ("mdlm-dit", "token"),
    ("mdlm-dit", "late"),
]


def objective_of(backbone: str, head: str, at_a_time: int | None = None, depth: int | None = None) -> Di4C:
    """A Di4C of one of the two transformers, with dropout."""
    process = Absorbing(5)
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": depth or (2 if head == "late" else 1), "heads": 2, "dropout": 0.2}
    network = DiT(6, 6, **sizes) if backbone == "dit" else MdlmDiT(6, 6, conditioning_width=8, **sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    teacher = DenoiserTeacher(process, 6, backbone=network, parameterisation=Subs(process)).freeze()
    trained = teacher.student_backbone()
    model = MixtureStudent(trained, HEADS[head](1, trained), parameterisation=teacher.parameterisation, num_states=6)
    return Di4C(
        teacher, model, latent=Uniform(), sampler=Ancestral(process), components=4, targets=3, time=UniformTime(),
        teacher_step=TeacherStep("constant", size=0.1), data=DataTerm(1.0, ControlVariate(), Gate("constant", 1.0)),
        consistency=ConsistencyTerm(1.0, ControlVariate()), components_at_a_time=at_a_time,
    )  # fmt: skip


def losses_and_gradients(objective: Di4C, *, once: bool = False) -> list[torch.Tensor]:
    """Of two steps on other examples each; once: torch.compile may compile in the first alone."""
    examples = insert_example_dropout(objective.train())
    found = []
    for step in range(2):
        objective.zero_grad()
        examples.first, examples.count = 3 * step, 3
        torch.manual_seed(step)
        with torch._dynamo.config.patch(error_on_recompile=once and step > 0):
            loss = objective(
                Batch(Draws(5, first=3 * step, count=3).integers(5, 6)), Draws(7, first=3 * step, count=3), step
            )["loss"]
            loss.mean().backward()
        found += [loss.detach(), *(p.grad.clone() for p in objective.model.parameters() if p.grad is not None)]
    return found


def compiled_alike(backbone: str, head: str, at_a_time: int | None, backend: str) -> None:
    """Compiled steps have no graph break, no warning, no second compilation, and the numbers of steps that are not compiled."""
    expected = losses_and_gradients(objective_of(backbone, head, at_a_time))
    objective = objective_of(backbone, head, at_a_time)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with warnings.catch_warnings(record=True) as said:  # not as errors: the compiler hides some of its own
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's of itself, which users are not shown
        assert compile_backbones(objective, objective.teacher.network, backend=backend) == 2
        found = losses_and_gradients(objective, once=True)
    assert not [str(warning.message) for warning in said]
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "head", "at_a_time"),
    [
        ("dit", "token", None),
        ("dit", "adaln", None),
        ("dit", "late", 2),
        ("dit", "readout", None),
        ("mdlm-dit", "token", None),
    ],
)
def test_a_step_is_compiled_once_and_whole(backbone, head, at_a_time):
    compiled_alike(backbone, head, at_a_time, "eager")


@pytest.mark.slow
@pytest.mark.parametrize("at_a_time", [None, 2])
@pytest.mark.parametrize(("backbone", "head"), SYSTEMS)
def test_compiled_steps_have_the_gradients_of_eager_ones(backbone, head, at_a_time):
    compiled_alike(backbone, head, at_a_time, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize(("backbone", "head"), SYSTEMS)
def test_inductor_says_nothing_and_changes_nothing(backbone, head):
    compiled_alike(backbone, head, None, "inductor")
