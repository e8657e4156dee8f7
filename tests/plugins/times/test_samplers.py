"""Laws of t and of the teacher's step."""

import pytest
import torch

from di4c.draws import Draws
from di4c.errors import SpecError
from di4c.losses.terms import Gate, TeacherStep
from di4c.testing import check_time_sampler
from di4c_plugins.times.samplers import LowDiscrepancyTime, SplitTime, TimeAboveStep, TimeGrid, UniformTime


@pytest.mark.parametrize("law", [UniformTime, LowDiscrepancyTime])
def test_uniform_laws_have_uniform_moments(law):
    t, interval = law(low=0.2, high=0.8).sample(Draws(0, count=5000))
    assert interval == (0.2, 0.8) and t.min() >= 0.2 and t.max() <= 0.8
    assert abs(t.mean() - 0.5) < 4 * 0.6 / (12 * 5000) ** 0.5


def test_low_discrepancy_covers_the_interval_evenly():
    t, _ = LowDiscrepancyTime().sample(Draws(0, count=64))
    gaps = t.sort().values.diff()
    assert gaps.max() < 3 / 64
    assert torch.equal(t[10:], LowDiscrepancyTime().sample(Draws(0, first=10, count=54))[0])


def test_split_puts_the_whole_batch_on_one_side():
    law = SplitTime(split=0.1, probability=0.3)
    below = 0
    for step in range(1000):
        t, (low, high) = law.sample(Draws(step, count=4))
        assert (t >= low).all() and (t <= high).all() and (low == 0.1) == (high == 1.0)
        below += high < 0.1
        assert high < 0.1 or low == 0.1
    assert abs(below / 1000 - 0.3) < 4 * (0.21 / 1000) ** 0.5


def test_grid_and_above_step():
    t, interval = TimeGrid(points=[0.25, 0.5, 1.0]).sample(Draws(0, count=100))
    assert set(t.tolist()) == {0.25, 0.5, 1.0} and interval == (0.25, 1.0)
    step = TeacherStep("log-uniform", smallest=1e-3, largest=1e-2).draw(Draws(1, count=1000))
    t, _ = TimeAboveStep(low=0.01).sample(Draws(2, count=1000), step)
    assert (t - step >= 0.01).all() and t.max() <= 1 and step.min() >= 1e-3 and step.max() <= 1e-2


def test_steps_never_pass_zero():
    law = TeacherStep("constant", size=0.25, fraction=0.5)
    t = torch.tensor([0.1, 0.9], dtype=torch.float64)
    assert torch.allclose(law.earlier(t, law.draw(Draws(0, count=2))), torch.tensor([0.05, 0.65], dtype=torch.float64))


def test_gates():
    t = torch.tensor([0.0, 0.5, 1.0])
    assert torch.allclose(Gate("sigmoid", 0.1)(t), 0.1 * torch.sigmoid(20 * (t - 0.5)))
    assert torch.equal(Gate("linear", 2.0)(t), 2 * t) and torch.equal(Gate("constant", 3.0)(t), torch.full((3,), 3.0))


LAWS = [
    UniformTime(low=0.1),
    LowDiscrepancyTime(),
    TimeAboveStep(low=0.01),
    TimeGrid([0.25, 1.0]),
    SplitTime(split=0.4, probability=0.5),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_laws_hold_their_contract(law):
    check_time_sampler(law)


def test_a_law_whose_interval_is_its_own_ranks_is_caught():
    class Own(UniformTime):
        def sample(self, draws, step=0.0):
            t, _ = super().sample(draws, step)
            return t, (float(t.min()), float(t.max()))

    with pytest.raises(AssertionError, match="the interval depends on the share of the batch"):
        check_time_sampler(Own())


@pytest.mark.parametrize("bad", [
    lambda: TimeGrid([]), lambda: TimeGrid([1.5]), lambda: UniformTime(low=0.5, high=0.5), lambda: UniformTime(high=1.5),
    lambda: SplitTime(split=1.0, probability=0.5), lambda: SplitTime(split=0.5, probability=2.0),
])  # fmt: skip
def test_bad_laws_are_refused(bad):
    with pytest.raises(SpecError):
        bad()


def test_a_span_that_misses_a_time_fails_the_check():
    class Early(UniformTime):
        span = (0.0, 0.5)

    with pytest.raises(AssertionError, match="span"):
        check_time_sampler(Early())
