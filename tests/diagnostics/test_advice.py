"""The advice on M: its curve against enumeration, and what it suggests."""

import itertools
import math
from dataclasses import replace

import torch

from di4c.contracts import Batch, Context, Draws
from di4c.diagnostics.advice import Noised, Size, suggested_components
from di4c.diagnostics.mixture import Studied
from di4c.losses.objective import Di4C
from di4c.losses.terms import DataTerm, Gate
from di4c.mixture.sums import Query, statistics
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.samplers import UniformTime
from tests.systems import tiny_student, tiny_teacher


def test_the_curve_is_that_of_enumeration():
    """Independent draws of 3 atoms, M = 1, 2, 4: means over all 3^M sets; standard deviations too. 4 · 3 atoms are not enumerated."""
    teacher = tiny_teacher(4, 3, num_classes=None)
    latent = Categorical(atoms=3, independent=True)
    student = tiny_student(teacher, "readout", 3)
    x_0 = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1]]).repeat(20, 1)
    x_t, t = torch.full((40, 4), 3), torch.ones(40)
    noised = Noised(Studied(student, latent, teacher.process), Batch(x_0), x_t, t)
    found = noised.curve([1, 2, 4], Draws(0, count=40), sets=10)
    with torch.no_grad():
        prediction = student.predict(x_t, t, None, torch.eye(3).expand(40, -1, -1))
        joint = statistics(prediction, [Query(frozenset({"joint"}), x_0[:, None])])[0].joint[:2, 0]
    for size in found:
        sets = torch.tensor(list(itertools.product(range(3), repeat=size.components)))
        nll = math.log(size.components) - joint[:, sets].logsumexp(-1)  # [2, 3^M]
        sd = float(nll.var(1, correction=0).mean().sqrt())
        assert abs(size.nll - float(nll.mean())) < 5 * sd / (40 * 10 * 4 / size.components) ** 0.5
        assert abs(size.sd - sd) < 0.25 * sd
    assert [s.components for s in found] == [1, 2, 4]
    in_parts = replace(noised, of=replace(noised.of, at_a_time=3)).curve([1, 2, 4], Draws(0, count=40))
    whole = noised.curve([1, 2, 4], Draws(0, count=40))
    assert max(abs(a.nll - b.nll) for a, b in zip(in_parts, whole, strict=True)) < 1e-5


def test_the_suggestion_is_the_smallest_that_the_next_hardly_beats():
    curve = [Size(4, 10.0, 1.0), Size(8, 9.0, 1.0), Size(16, 8.95, 1.0), Size(32, 8.94, 1.0)]
    assert suggested_components(curve, 0.1) == 8
    assert suggested_components(curve, 2.0) == 4
    assert suggested_components(curve, 0.001) == 32


def objective(latent, **options) -> Di4C:
    teacher = tiny_teacher(num_classes=None)
    return Di4C(
        teacher,
        tiny_student(teacher, "late", latent.dim),
        latent=latent,
        sampler=Ancestral(teacher.process),
        components=4,
        time=UniformTime(),
        data=DataTerm(1.0, MonteCarlo(), Gate("constant", 1.0)),
        **options,
    )


def test_diagnostics_suggest_m_and_depend_on_no_rank():
    batch, draws = Batch(torch.randint(5, (6, 6), generator=torch.Generator().manual_seed(0))), Draws(3, count=6)
    found = objective(Uniform()).diagnostics(batch, draws)
    assert found["suggested_components"] in (2, 4, 8, 16)
    assert objective(Uniform(), bias_tolerance_nats=100.0).diagnostics(batch, draws)["suggested_components"] == 2
    assert objective(Uniform(), bias_tolerance_nats=-100.0).diagnostics(batch, draws)["suggested_components"] == 16
    halves = [
        objective(Uniform()).diagnostics(Batch(batch.x_0[k : k + 3]), Draws(3, first=k, count=3))["gain_by_4m_nats"]
        for k in (0, 3)
    ]
    assert abs(sum(halves) / 2 - found["gain_by_4m_nats"]) < 1e-4


def test_diagnostics_take_no_more_components_at_once_than_a_step_and_find_the_same(monkeypatch):
    batch, draws = Batch(torch.zeros(2, 6, dtype=torch.long)), Draws(3, count=2)
    whole, few = objective(Uniform()), objective(Uniform(), components_at_a_time=2)
    found, seen, split = whole.diagnostics(batch, draws), [], Context.split
    monkeypatch.setattr(Context, "split", lambda self, size, trunk=None: seen.append(size) or split(self, size, trunk))
    in_parts = few.diagnostics(batch, draws)
    assert set(seen) == {2} and found.keys() == in_parts.keys()
    assert max(abs(found[name] - in_parts[name]) for name in found) < 1e-4


def test_an_enumerated_law_needs_no_advice():
    assert "suggested_components" not in objective(Categorical(atoms=4)).diagnostics(
        Batch(torch.zeros(2, 6, dtype=torch.long)), Draws(0, count=2)
    )
