"""A student of this project as teacher: its components are averaged, exactly where λ is finite."""

import itertools
import json

import pytest
import torch
from safetensors.torch import save_file

import di4c
from di4c.config.build import DataShape, build, build_teacher, portable
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.contracts import Draws
from di4c.errors import SpecError
from di4c.testing import check_teacher
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.teachers.averaged import Averaged
from tests.config.specs import DISTILL, changed
from tests.systems import HEADS, tiny_student, tiny_teacher

WEIGHTS = [0.5, 0.3, 0.15, 0.05]
LAW = Categorical(atoms=4, weights=WEIGHTS)


def averaged(head: str = "late", positions: int = 6, states: int = 5, **options) -> tuple[Averaged, object]:
    first = tiny_teacher(positions, states)
    student = tiny_student(first, head, latent_dim=4)
    return Averaged(first.process, positions, student=student, latent=LAW, **options).freeze(), student


def components(student, x_t, t, cond=None) -> torch.Tensor:
    """p(x_0^d | x_t; λ_k) of every atom, one network call an atom: [B, K, D, S] float64."""
    each = [student.predict(x_t, t, cond, torch.eye(4)[k].expand(len(x_t), 1, 4)).log_p0() for k in range(4)]
    return torch.stack(each, 1).double().exp()


@pytest.mark.parametrize("head", HEADS)
def test_the_prediction_is_the_weighted_mean_of_the_components(head):
    teacher, student = averaged(head)
    draws = Draws(0, count=3)
    t = torch.full((3,), 0.6)
    x_t = teacher.process.corrupt(draws.integers(5, 6), t, draws)
    cond = torch.tensor([0, 2, -1])
    with torch.no_grad():
        wanted = torch.einsum(
            "k,bkds->bds", torch.tensor(WEIGHTS, dtype=torch.float64), components(student.eval(), x_t, t, cond)
        )
    assert torch.allclose(teacher.predict(x_t, t, cond).log_p0().double().exp(), wanted, atol=1e-6)


@pytest.mark.parametrize("steps", ["mixture", "product"])
def test_a_step_is_of_the_mixture_or_of_the_averaged_product(steps):
    """All 3² outcomes of two positions are enumerated: only the mixture keeps the correlation, both keep the marginals."""
    teacher, student = averaged("readout", positions=2, states=3, steps=steps)
    for parameter in student.parameters():
        parameter.data *= 2.0  # components that differ well
    count = 20_000
    x_t, t = torch.full((1, 2), teacher.process.mask_index), torch.ones(1)
    with torch.no_grad():
        p = components(student, x_t, t)[0, :, :, :3]
    w = torch.tensor(WEIGHTS, dtype=torch.float64)
    laws = {
        "mixture": torch.einsum("k,ks,kr->sr", w, p[:, 0], p[:, 1]),
        "product": torch.outer(*torch.einsum("k,kds->ds", w, p)),
    }
    assert (laws["mixture"] - laws["product"]).abs().max() > 0.02
    law, draws = laws[steps], Draws(3, count=count)
    x_1 = teacher.process.prior(2, draws)
    x_0 = Ancestral(teacher.process).sample(teacher.denoiser(draws.child("λ")), x_1, 1, None, draws)
    for s, r in itertools.product(range(3), repeat=2):
        found = ((x_0[:, 0] == s) & (x_0[:, 1] == r)).double().mean()
        assert abs(found - law[s, r]) < 5 * (law[s, r] * (1 - law[s, r]) / count).sqrt() + 1e-9
        one = teacher.components(x_t, t)
        likelihood = (
            one.log_prob_of(torch.tensor([[s, r]])).double() + (one.log_weights if steps == "mixture" else 0)
        ).logsumexp(1)
        assert abs(likelihood.exp() - law[s, r]) < 1e-6


def test_it_fulfils_the_contract_of_teachers():
    check_teacher(averaged()[0])


def test_an_infinite_law_is_stood_for_by_midpoints():
    first = tiny_teacher()
    student = tiny_student(first, "late")
    assert len(Averaged(first.process, 6, student=student, latent=Uniform()).lam) == 16
    with pytest.raises(SpecError, match="at least 1"):
        Averaged(first.process, 6, student=student, latent=Uniform(), components=-1)
    teacher = Averaged(first.process, 6, student=student, latent=Uniform(), components=8)
    assert torch.equal(teacher.lam[:, 0], (torch.arange(8) + 0.5) / 8)
    assert torch.allclose(teacher.log_weights.exp(), torch.full((8,), 1 / 8, dtype=torch.float64))


def test_other_states_and_no_run_are_told():
    first = tiny_teacher()
    with pytest.raises(SpecError, match="6 states in its run, 10 here"):
        Averaged(Absorbing(9), 6, student=tiny_student(first), latent=LAW)
    with pytest.raises(SpecError, match="`run` is missing"):
        Averaged(first.process, 6)


@pytest.fixture
def run(tmp_path):
    """The export of a student of random weights, as training leaves it."""
    spec = Spec.from_dict(changed(DISTILL, latent={"name": "categorical", "atoms": 2}))
    parts = build(spec, Registry.default())
    for parameter in parts.student.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path / "student" / "export"
    folder.mkdir(parents=True)
    save_file(parts.student.state_dict(), folder / "model.safetensors")
    config = {"format": "di4c-export", "version": 1, "spec": portable(spec, parts.teacher).to_dict()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder.parent


def of_run(run, **changes) -> Spec:
    entry = {"name": "averaged", "run": str(run)} | changes
    return Spec.from_dict(changed(DISTILL, latent={"name": "categorical", "atoms": 2}, teacher=entry))


def test_a_students_student_starts_from_it_and_its_export_needs_no_teacher(run):
    spec, registry = of_run(run), Registry.default()
    parts = build(spec, registry)
    first = di4c.load(run, device="cpu").student.state_dict()
    assert all(torch.equal(value, first[name]) for name, value in parts.student.state_dict().items())
    skeleton = build(portable(spec, parts.teacher), registry, weights=False, data=DataShape.of(parts.data))
    assert {k: v.shape for k, v in skeleton.student.state_dict().items()} == {k: v.shape for k, v in first.items()}


def test_a_teacher_that_is_not_made_of_a_student_says_which_are(run):
    with pytest.raises(
        SpecError, match="is a distilled student, and 'denoiser' is not made of one. Teachers that are: averaged"
    ):
        spec = of_run(
            run, name="denoiser", backbone={"name": "dit", "width": 16, "depth": 1, "heads": 2}, parameterisation="subs"
        )
        build_teacher(spec, Registry.default(), DataShape(64, 17, 10), Absorbing(17))
