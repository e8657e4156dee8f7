"""MaskGIT's mask schedules."""

import pytest
import torch

from di4c.contracts import Draws
from di4c.testing import check_process
from di4c_plugins.processes.maskgit import RATIO_SCHEDULES, MaskGITProcess, RatioSchedule


@pytest.mark.parametrize("name", RATIO_SCHEDULES)
def test_everything_is_clean_at_0_and_masked_at_1(name):
    process = MaskGITProcess(5, schedule=name)
    x_0 = torch.arange(20).view(4, 5) % 5
    draws = Draws(seed=0, count=4)
    assert torch.equal(process.corrupt(x_0, torch.zeros(4, dtype=torch.float64), draws), x_0)
    assert (process.corrupt(x_0, torch.ones(4, dtype=torch.float64), draws) == process.mask_index).all()


@pytest.mark.parametrize("name", RATIO_SCHEDULES)
def test_it_keeps_the_contract(name):
    check_process(MaskGITProcess(5, schedule=name))


@pytest.mark.parametrize("name", RATIO_SCHEDULES)
def test_the_rate_is_the_logarithmic_derivative(name):
    t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64, requires_grad=True)
    schedule = RatioSchedule(name)
    (rate,) = torch.autograd.grad(schedule.masked(t).log().sum(), t)
    torch.testing.assert_close(schedule.log_rate(t.detach()), rate, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", RATIO_SCHEDULES)
def test_the_masked_fraction_grows_with_t(name):
    masked = RatioSchedule(name).masked(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert (masked.diff() > 0).all()
