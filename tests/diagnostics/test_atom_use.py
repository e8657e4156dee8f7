"""Atoms without data: planted dead ones are counted, by class, by weight and by example."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from di4c.contracts import Batch, Prediction
from di4c.diagnostics.atom_use import LARGEST_PROBE, SMALL_TIME, probe_examples, unused_atoms
from di4c.diagnostics.mixture import Studied
from di4c.draws import Draws
from di4c.engine.report import Reporter
from di4c.losses.objective import Di4C
from di4c.losses.terms import DataTerm, Gate
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.samplers import UniformTime
from tests.systems import tiny_student, tiny_teacher

ATOMS, POSITIONS, STATES = 8, 4, 10
DEAD = STATES - 1
"""A state that no data are in; an atom that emits it is dead."""


class Planted:
    """Atom k of class c emits the state patterns[c][k] at every position, almost surely; at t < 1 that of `early`, if given."""

    def __init__(self, patterns: list[list[int]], early: list[list[int]] | None = None):
        self.patterns, self.early = torch.tensor(patterns), torch.tensor(early or patterns)

    def predict(self, x_t, t, cond, lam, log_weights=None, *, at_a_time=None):
        emitted = (self.patterns if t[0] == 1 else self.early)[
            torch.zeros(len(x_t), dtype=torch.long) if cond is None else cond
        ]
        logits = 20.0 * torch.nn.functional.one_hot(emitted[:, lam.argmax(-1)[0]], STATES + 1)
        made = Prediction.from_logits(logits[:, :, None].expand(-1, -1, POSITIONS, -1).float(), x_t)
        return replace(made, log_weights=log_weights)


def live(count: int, first: int = 0) -> list[int]:
    """Atoms first, …, first + count − 1 emit the states of these names, the others are dead."""
    return [k if first <= k < first + count else DEAD for k in range(ATOMS)]


def probe(labels: list[int] | None, patterns: list[list[int]], each: int) -> Batch:
    """Examples of every class in turn, evenly over what its live atoms emit."""
    rows, cond = [], []
    for label in labels or [0]:
        states = [s for s in patterns[label] if s != DEAD]
        rows += [[states[i % len(states)]] * POSITIONS for i in range(each)]
        cond += [label] * each
    return Batch(torch.tensor(rows), None if labels is None else torch.tensor(cond))


def share(patterns, batch, *, latent=None, rows_at_a_time=3) -> float:
    latent = latent or Categorical(atoms=ATOMS)
    studied = Studied(Planted(patterns), latent, Absorbing(STATES))
    return unused_atoms(studied, batch, Draws(0, count=2), rows_at_a_time=rows_at_a_time)["unused_atoms"]


def test_dead_atoms_are_counted():
    patterns = [live(5)]
    assert share(patterns, probe(None, patterns, 4 * ATOMS)) == pytest.approx(3 / 8)
    assert share([live(8)], probe(None, [live(8)], 4 * ATOMS)) == 0


def test_atoms_that_are_dead_at_small_times_alone_are_counted_there():
    studied = Studied(Planted([live(8)], early=[live(5)]), Categorical(atoms=ATOMS), Absorbing(STATES))
    options = {"draws": Draws(0, count=32), "rows_at_a_time": 5}
    batch = probe(None, [live(5)], 4 * ATOMS)
    assert unused_atoms(studied, batch, t=SMALL_TIME, **options) == {"unused_atoms_small_t": pytest.approx(3 / 8)}
    assert unused_atoms(studied, probe(None, [live(8)], 4 * ATOMS), **options) == {"unused_atoms": 0}
    everywhere = Studied(Planted([live(8)]), Categorical(atoms=ATOMS), Absorbing(STATES))
    assert unused_atoms(everywhere, probe(None, [live(8)], 4 * ATOMS), t=SMALL_TIME, **options) == {
        "unused_atoms_small_t": 0
    }


@pytest.mark.parametrize("seed", range(4))
def test_examples_in_which_nothing_is_uncertain_do_not_hide_a_dead_atom(seed):
    """At t = 1/4 a third of the examples of four positions has no mask: there every atom has its prior weight."""
    studied = Studied(Planted([live(7)]), Categorical(atoms=ATOMS), Absorbing(STATES))
    found = unused_atoms(
        studied, probe(None, [live(7)], 4 * ATOMS), Draws(seed, count=32), rows_at_a_time=5, t=SMALL_TIME
    )
    assert found == {"unused_atoms_small_t": pytest.approx(1 / 8)}


def test_nothing_is_said_of_what_was_not_looked_at():
    studied = Studied(Planted([live(8)]), Categorical(atoms=ATOMS), Absorbing(STATES))
    batch, options = probe(None, [live(8)], 4 * ATOMS), {"draws": Draws(0, count=32), "rows_at_a_time": 5}
    assert unused_atoms(studied, batch, t=1e-9, **options) == {}
    many = Studied(None, Categorical(atoms=65), Absorbing(STATES))
    assert unused_atoms(many, probe(None, [live(8)], 4 * 65), t=SMALL_TIME, **options) == {}


def test_atoms_dead_for_a_class_are_counted_though_another_class_uses_them():
    patterns = [live(5), live(3, first=5)]
    batch = probe([0, 1], patterns, 4 * ATOMS)
    assert share(patterns, batch) == pytest.approx((3 / 8 + 5 / 8) / 2)
    assert share(patterns, batch, rows_at_a_time=1) == share(patterns, batch)


def test_without_enough_examples_a_class_the_examples_count_together():
    patterns = [live(5), live(2, first=5)]
    assert share(patterns, probe([0, 1], patterns, 2 * ATOMS)) == pytest.approx(1 / 8)


def test_atoms_count_by_their_weight():
    patterns, weights = [live(7)], [1.0] * 7 + [3.0]
    assert share(
        patterns, probe(None, patterns, 4 * ATOMS), latent=Categorical(atoms=ATOMS, weights=weights)
    ) == pytest.approx(0.3)
    never_drawn = Categorical(atoms=ATOMS, weights=[1.0] * 7 + [0.0])
    assert share(patterns, probe(None, patterns, 4 * ATOMS), latent=never_drawn) < 1e-9


def test_examples_are_asked_for_where_they_say_something():
    atoms = Categorical(atoms=ATOMS)
    assert probe_examples(Uniform(), 10) == probe_examples(Categorical(atoms=1), 10) == 0
    assert probe_examples(atoms, None) == 4 * ATOMS <= probe_examples(atoms, 10) / 10
    assert probe_examples(atoms, LARGEST_PROBE) == 4 * ATOMS


def test_the_objective_reports_it_and_the_run_warns_of_it_once_late(tmp_path, capsys):
    teacher, latent = tiny_teacher(), Categorical(atoms=4)
    made = Di4C(
        teacher,
        tiny_student(teacher, "readout", 4),
        latent=latent,
        sampler=Ancestral(teacher.process),
        components=4,
        num_classes=3,
        time=UniformTime(),
        data=DataTerm(1.0, MonteCarlo(), Gate("constant", 1.0)),
    )

    def probe_batch(number: int) -> Batch:
        return Batch(Draws(9, count=number).integers(5, 6), Draws(9, count=number).integers(3))

    found = made.diagnostics(probe_batch(6), Draws(0, count=6), probe_batch)
    assert 0 <= found["unused_atoms"] <= 1 and 0 <= found["unused_atoms_small_t"] <= 1
    reporter = Reporter(tmp_path, SimpleNamespace(enabled=False), steps=40, batch_size=16)
    for step in (10, 20, 40):
        shares = {"unused_atoms": 0.25, "unused_atoms_small_t": 0.5}
        told = made.warnings(found | {"mixture_collapsed": 0.0} | shares, step / 40)
        reporter.report(step, {}, found, told)
    said = capsys.readouterr().err
    assert said.count("warning: step 20: 25% of the one-step samples") == 1
    assert said.count("warning: step 20: 50% of the steps from t = 1/4") == 1
    assert (tmp_path / "warnings.txt").read_text().startswith("unused-atoms: step 20")
