"""Compiled backbones give the same numbers and keep their parameters' names."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.heads.adaln import Late
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing

import di4c
from di4c.mixture.student import MixtureStudent
from di4c.engine.compiling import compile_backbones

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
        trained(run, "student", f"train.run={run}", f"teacher.run={teacher}", f"train.compile={str(run.name == 'compiled').lower()}")
        for run in (tmp_path / "eager", tmp_path / "compiled")
    )
    assert len(eager) == 6 and compiled == pytest.approx(eager, rel=1e-4)
    tokens, same = (
        di4c.load(tmp_path / "eager", device="cpu", compile=compile).sample(4, steps=2, cond=7, seed=0) for compile in (False, True)
    )
    assert tokens.shape == (4, 64) and (tokens == same).float().mean() > 0.95  # a draw between two states may go the other way


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


def test_what_is_compiled_is_the_backbone(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: seen.append((type(self).__name__, options)))
    assert compile_backbones(student()) == 1
    assert seen == [("DiT", {"backend": "inductor"})]
