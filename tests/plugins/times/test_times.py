"""Laws of t that published systems were trained with."""

import math

import pytest
import torch

from di4c.config.construct import plan
from di4c.config.registry import Registry
from di4c.draws import Draws
from di4c.errors import RegistryError, SpecError
from di4c.testing import check_time_sampler
from di4c_plugins.times.discrete import Discrete
from di4c_plugins.times.low_or_uniform import LowOrUniform
from di4c_plugins.times.samplers import SplitTime, UniformTime


@pytest.mark.parametrize(
    "law", [LowOrUniform(high=0.2, probability=0.5), Discrete(8, SplitTime(split=0.4, probability=0.5))]
)
def test_laws_hold_their_contract(law):
    check_time_sampler(law)


def test_low_or_uniform():
    t, interval = LowOrUniform(low=0.01, high=0.02, probability=0.5).sample(Draws(0, count=4000))
    at_low = t == 0.01
    assert interval == (0.01, 0.02) and t.dtype == torch.float64 and t.max() < 0.02
    assert abs(at_low.double().mean() - 0.5) < 4 * (0.25 / 4000) ** 0.5
    assert abs(t[~at_low].mean() - 0.015) < 4 * 0.01 / (12 * 2000) ** 0.5


def test_discrete_times_are_a_grid():
    """1/T, …, 1, and the interval holds all of them."""
    law = Discrete(1024, SplitTime(split=0.02, probability=0.5))
    for step in range(20):
        t, (low, high) = law.sample(Draws(step, count=200))
        steps = t * 1024
        assert torch.equal(steps, steps.round()) and low <= t.min() and t.max() <= high and t.min() >= 1 / 1024


def test_trouble_b16_a_batch_of_gridded_times_is_on_one_side_of_the_split():
    """sony/di4c tests the gridded t: 21/1024 is not below 0.02. So the target is due in 70 % of the steps, and in that cell."""
    law, probability, batches = Discrete(1024, SplitTime(split=0.02, probability=0.3)), 0.3, 4000
    found = [law.sample(Draws(step, count=2)) for step in range(batches)]
    for t, (low, high) in found:
        assert high < 0.02 or low >= 0.02
        assert ((t < 0.02) == (high < 0.02)).all()
    due = sum(high >= 0.02 for _, (_, high) in found) / batches
    cell = 1 - 20 / 1024 / 0.02  # of the lower side's times
    expected = 1 - probability * (1 - cell)
    assert abs(due - expected) < 4 * (expected * (1 - expected) / batches) ** 0.5


def test_the_law_of_gridded_times_is_that_of_the_times():
    """Batches of their own change no probability: each cell has its share of U[0, split) and U[split, 1)."""
    law, count = Discrete(8, SplitTime(split=0.3, probability=0.5)), 4000
    t = torch.cat([law.sample(Draws(step, count=1))[0] for step in range(count)])
    frequency = torch.stack([(t == (k + 1) / 8).double().mean() for k in range(8)])
    edges = torch.arange(9).double() / 8
    below = (edges[1:].clamp_max(0.3) - edges[:-1].clamp_max(0.3)) / 0.3
    above = (edges[1:].clamp_min(0.3) - edges[:-1].clamp_min(0.3)) / 0.7
    truth = 0.5 * (below + above)
    assert ((frequency - truth).abs() < 4.5 * (truth * (1 - truth) / count).sqrt()).all()


def test_a_split_without_a_grid_draws_as_ever():
    t, interval = SplitTime(split=0.02, probability=1.0).sample(Draws(0, count=4))
    assert interval == (0.0, math.nextafter(0.02, 0.0)) and torch.equal(t, interval[1] * Draws(0, count=4).uniform())


def test_a_law_is_named_by_law_in_a_spec():
    def made(entry):
        return (
            plan(Registry.default(), "objectives", {"name": "nelbo", "time": entry}, {"teacher"}, "objective")
            .nested["time"]
            .build({})
        )

    assert made("uniform") == made({"name": "uniform"}) == UniformTime()
    assert made({"name": "discrete", "count": 4, "time": {"name": "uniform", "low": 0.5}}) == Discrete(
        4, UniformTime(0.5)
    )
    with pytest.raises(RegistryError, match="objective.time: .*no time named 'unifrm'. Did you mean 'uniform'"):
        made({"name": "unifrm"})
    with pytest.raises(SpecError, match="objective.time.name: expected a string, found None"):
        made({"low": 0.5})
    with pytest.raises(RegistryError, match="'uniform' .* has no option 'lwo'. Did you mean 'low'"):
        made({"name": "uniform", "lwo": 0.5})


@pytest.mark.parametrize("bad", [lambda: LowOrUniform(probability=2.0), lambda: Discrete(0, UniformTime())])
def test_bad_laws_are_refused(bad):
    with pytest.raises(SpecError):
        bad()
