"""Laws of t and of the teacher's step."""

import pytest
import torch

from di4c.algorithm.times import Gate, StepLaw, TimeLaw
from di4c.draws import Draws
from di4c.errors import SpecError


@pytest.mark.parametrize("law", ["uniform", "low-discrepancy"])
def test_uniform_laws_have_uniform_moments(law):
    t, interval = TimeLaw(law, low=0.2, high=0.8).sample(Draws(0, count=5000))
    assert interval == (0.2, 0.8) and 0.2 <= t.min() and t.max() <= 0.8
    assert abs(t.mean() - 0.5) < 4 * 0.6 / (12 * 5000) ** 0.5


def test_low_discrepancy_covers_the_interval_evenly():
    t, _ = TimeLaw("low-discrepancy").sample(Draws(0, count=64))
    gaps = t.sort().values.diff()
    assert gaps.max() < 3 / 64
    assert torch.equal(t[10:], TimeLaw("low-discrepancy").sample(Draws(0, first=10, count=54))[0])


def test_split_puts_the_whole_batch_on_one_side():
    law = TimeLaw("split", split=0.1, probability=0.3)
    below = 0
    for step in range(1000):
        t, (low, high) = law.sample(Draws(step, count=4))
        assert (t >= low).all() and (t <= high).all() and (low == 0.1) == (high == 1.0)
        below += high < 0.1
        assert high < 0.1 or low == 0.1
    assert abs(below / 1000 - 0.3) < 4 * (0.21 / 1000) ** 0.5


def test_low_or_uniform():
    t, interval = TimeLaw("low-or-uniform", low=0.01, high=0.02, probability=0.5).sample(Draws(0, count=4000))
    at_low = t == 0.01
    assert interval == (0.01, 0.02) and t.dtype == torch.float64 and t.max() < 0.02
    assert abs(at_low.double().mean() - 0.5) < 4 * (0.25 / 4000) ** 0.5
    assert abs(t[~at_low].mean() - 0.015) < 4 * 0.01 / (12 * 2000) ** 0.5


def test_grid_and_above_step():
    t, interval = TimeLaw("grid", points=[0.25, 0.5, 1.0]).sample(Draws(0, count=100))
    assert set(t.tolist()) == {0.25, 0.5, 1.0} and interval == (0.25, 1.0)
    step = StepLaw("log-uniform", smallest=1e-3, largest=1e-2).draw(Draws(1, count=1000))
    t, _ = TimeLaw("above-step", low=0.01).sample(Draws(2, count=1000), step)
    assert (t - step >= 0.01).all() and t.max() <= 1 and step.min() >= 1e-3 and step.max() <= 1e-2


def test_steps_never_pass_zero():
    law = StepLaw("constant", size=0.25, fraction=0.5)
    t = torch.tensor([0.1, 0.9], dtype=torch.float64)
    assert torch.allclose(law.earlier(t, law.draw(Draws(0, count=2))), torch.tensor([0.05, 0.65], dtype=torch.float64))


def test_gates():
    t = torch.tensor([0.0, 0.5, 1.0])
    assert torch.allclose(Gate("sigmoid", 0.1)(t), 0.1 * torch.sigmoid(20 * (t - 0.5)))
    assert torch.equal(Gate("linear", 2.0)(t), 2 * t) and torch.equal(Gate("constant", 3.0)(t), torch.full((3,), 3.0))


@pytest.mark.parametrize("bad", [{"law": "grid"}, {"law": "uniform", "low": 0.5, "high": 0.5}, {"law": "uniform", "high": 1.5}])
def test_bad_laws_are_refused(bad):
    with pytest.raises(SpecError):
        TimeLaw(**bad)


def test_a_resolution_moves_times_up_to_a_grid():
    """T discrete times, as published language models have: 1/T, …, 1, and the interval holds all of them."""
    law = TimeLaw("split", split=0.02, probability=0.5, resolution=1024)
    for step in range(20):
        t, (low, high) = law.sample(Draws(step, count=200))
        steps = t * 1024
        assert torch.equal(steps, steps.round()) and low <= t.min() and t.max() <= high and t.min() >= 1 / 1024
        assert (low, high) == ((1 / 1024, 21 / 1024) if high < 0.5 else (21 / 1024, 1.0))
