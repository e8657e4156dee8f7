"""MDLM's noise schedules and the process that uses them."""

import pytest
import torch

from di4c.contracts import Draws, Prediction
from di4c.errors import SpecError
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.processes.noise import discretised, noise_schedule

NAMES = ["log-linear", "cosine", "cosine-squared", "linear", "geometric"]
T = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_rate_is_the_derivative_of_sigma(name):
    schedule = noise_schedule(name)
    slope = (schedule.sigma(T + 1e-6) - schedule.sigma(T - 1e-6)) / 2e-6
    torch.testing.assert_close(schedule.rate(T), slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_mask_probability_and_its_logarithmic_rate_follow_from_sigma(name):
    schedule = noise_schedule(name)
    torch.testing.assert_close(schedule.masked(T), 1 - (-schedule.sigma(T)).exp(), rtol=1e-9, atol=1e-12)
    slope = (schedule.masked(T + 1e-6) - schedule.masked(T - 1e-6)) / 2e-6
    torch.testing.assert_close(schedule.log_rate(T), slope / schedule.masked(T), rtol=1e-5, atol=1e-6)
    assert (schedule.masked(T).diff() > 0).all()
    assert schedule.masked(torch.zeros(1)).item() == 0


@pytest.mark.parametrize(("name", "at_half"), [("log-linear", 0.5), ("cosine", 1 - 2**-0.5), ("cosine-squared", 0.5)])
def test_published_forms(name, at_half):
    half = torch.tensor([0.5], dtype=torch.float64)
    torch.testing.assert_close(noise_schedule(name, epsilon=0.0).masked(half).item(), at_half)
    torch.testing.assert_close(noise_schedule(name).masked(torch.ones(1, dtype=torch.float64)).item(), 0.999)


def test_published_ranges():
    one = torch.ones(1, dtype=torch.float64)
    assert noise_schedule("linear").sigma(one).item() == 10
    torch.testing.assert_close(
        noise_schedule("geometric", sigma_min=1e-2, sigma_max=20).sigma(one / 2).item(), 0.2**0.5
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("quadratic", {}),
        ("cosine", {"sigma_max": 3.0}),
        ("geometric", {"sigma_min": 0.0}),
        ("linear", {"sigma_min": 20.0}),
        ("log-linear", {"epsilon": 1.5}),
    ],
)
def test_schedules_that_cannot_be_are_refused(name, options):
    with pytest.raises(SpecError, match=name):
        noise_schedule(name, **options)


def test_grid_times_lie_above():
    t = torch.tensor([0.0, 0.1, 0.25, 1.0])
    torch.testing.assert_close(discretised(t, 4), torch.tensor([0.25, 0.25, 0.5, 1.25]))


@pytest.mark.parametrize("name", NAMES)
def test_the_process_masks_as_often_as_the_schedule_says_and_leaves_data_at_zero(name):
    process = Mdlm(3, noise=name)
    draws = Draws(0, count=200)
    x_0 = torch.zeros(200, 50, dtype=torch.int64)
    t = torch.full((200,), 0.7, dtype=torch.float64)
    share = (process.corrupt(x_0, t, draws) == 3).double().mean().item()
    wanted = process.schedule.masked(t)[0].item()
    assert abs(share - wanted) < 4 * (wanted * (1 - wanted) / 10_000) ** 0.5
    assert torch.equal(process.corrupt(x_0, torch.zeros(200, dtype=torch.float64), draws), x_0)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_step_leaves_no_mask(name):
    process = Mdlm(3, noise=name)
    x_t = torch.full((4, 6), 3)
    zero = torch.zeros(4, dtype=torch.float64)
    point = Prediction.point(torch.ones_like(x_t), x_t, 4)
    assert torch.equal(process.posterior(x_t, point, zero + 0.4, zero, Draws(0, count=4)), torch.ones_like(x_t))


def test_the_published_off_by_one_of_the_noised_data_is_an_option():
    """At t = k/T the published code masks with probability m(t + 1/T), at t = 1 with m(1025/1024); t = 0 stays clean."""
    exact, published = Mdlm(20), Mdlm(20, corrupt_grid=4)
    x_0, draws = torch.zeros(4000, 8, dtype=torch.int64), Draws(0, count=4000)
    for t in (0.0, 0.25, 0.5, 1.0):
        now = torch.full((4000,), t, dtype=torch.float64)
        shares = [
            (p.corrupt(x_0, now, draws.child("x", i)) == p.mask_index).double().mean()
            for i, p in enumerate((exact, published))
        ]
        wanted = [0.999 * t, min(0.999 * (t + 0.25), 1.0) if t else 0.0]
        assert all(abs(a - b) < 0.01 for a, b in zip(shares, wanted, strict=True)), t


@pytest.mark.parametrize("name", ["log-linear", "cosine", "cosine-squared"])
def test_confidence_samplers_find_all_masked_at_their_beginning_and_nothing_at_their_end(name):
    fraction = noise_schedule(name, epsilon=0.0).fraction(torch.linspace(0, 1, 9, dtype=torch.float64))
    torch.testing.assert_close(fraction[[0, -1]], torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert (fraction.diff() < 0).all()
