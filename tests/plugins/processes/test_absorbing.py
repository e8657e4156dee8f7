"""Absorbing diffusion: its limits, its posterior by enumeration, its bound."""

import itertools

import pytest
import torch

from di4c.contracts import Prediction
from di4c.draws import Draws
from di4c.errors import SpecError
from di4c_plugins.objectives.matching_forms import MaskedForm
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.maskgit import RATIO_SCHEDULES, MaskGITProcess
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.processes.noise import INTERPOLATED, RANGED


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_limits_of_the_forward_process():
    process = Absorbing(4)
    x_0 = Draws(0, count=50).integers(4, 7)
    assert torch.equal(process.corrupt(x_0, torch.zeros(50), Draws(1, count=50)), x_0)
    assert torch.equal(process.corrupt(x_0, torch.ones(50), Draws(1, count=50)), process.prior(7, Draws(2, count=50)))


def test_the_mask_fraction_is_t():
    masked = (
        Absorbing(4).corrupt(torch.zeros(1000, 40, dtype=torch.long), torch.full((1000,), 0.3), Draws(0, count=1000))
        == 4
    )
    assert abs(masked.double().mean() - 0.3) < 5 * (0.21 / 40_000) ** 0.5


def table(seed: int) -> torch.Tensor:
    """log p(x_0^d | x_t) of 2 positions and 2 states, mask forbidden: [1, 2, 3]."""
    logits = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[..., 2] = -1e6
    return logits.log_softmax(-1)


@pytest.mark.parametrize("s", [0.0, 0.3])
def test_posterior_draws_follow_their_log_probability(s):
    process, n = Absorbing(2), 40_000
    x_t = torch.tensor([[2, 2]])
    log_p = table(0)
    prediction = Prediction.from_logits(log_p.expand(n, -1, -1), x_t.expand(n, -1))
    x_s = process.posterior(x_t.expand(n, -1), prediction, times(0.8).expand(n), times(s).expand(n), Draws(0, count=n))
    total = 0.0
    for outcome in itertools.product(range(3), repeat=2):
        one = Prediction.from_logits(log_p, x_t)
        p = float(process.posterior_log_prob(torch.tensor([outcome]), x_t, one, times(0.8), times(s)).exp())
        frequency = (x_s == torch.tensor(outcome)).all(1).double().mean()
        assert abs(frequency - p) < 5 * max(p * (1 - p) / n, 1e-9) ** 0.5
        total += p
    assert abs(total - 1) < 1e-6


MASKED = [
    Absorbing(3),
    *(Mdlm(3, noise=noise) for noise in (*INTERPOLATED, *RANGED)),
    *(MaskGITProcess(3, schedule=s) for s in RATIO_SCHEDULES),
]


@pytest.mark.parametrize("t", [0.0, 1e-300])
@pytest.mark.parametrize(
    "process", MASKED, ids=lambda process: getattr(process.schedule, "name", type(process.schedule).__name__)
)
def test_the_bound_is_0_where_nothing_is_masked(process, t):
    """m′/m is infinite or 0/0 there; beside it an example at a later time is as it is alone."""
    x_0, both = torch.tensor([[0, 1, 2], [0, 1, 2]]), times(t, 0.7)
    x_t = torch.where(torch.tensor([[False] * 3, [True, False, True]]), process.mask_index, x_0)
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    bound = process.nelbo(x_0, x_t, both, Prediction.from_logits(logits, x_t))
    alone = process.nelbo(x_0[1:], x_t[1:], both[1:], Prediction.from_logits(logits[1:], x_t[1:]))
    assert bound[0] == 0 and bound[1] == alone[0] > 0
    (gradient,) = torch.autograd.grad(bound.sum(), logits)
    assert gradient.isfinite().all() and (gradient[0] == 0).all()
    coefficient = MaskedForm(process).coefficient(both, times(0.0, 1.0), 5.0)
    assert coefficient[0] == 0 and 0 < coefficient[1] <= 5


def test_visible_positions_stay():
    process = Absorbing(2)
    x_t = torch.tensor([[1, 2]]).expand(100, -1)
    x_s = process.posterior(
        x_t,
        Prediction.from_logits(table(1).expand(100, -1, -1), x_t),
        times(0.5).expand(100),
        times(0.1).expand(100),
        Draws(0, count=100),
    )
    assert (x_s[:, 0] == 1).all()


def test_the_bound_is_the_entropy_of_a_product_law_for_its_own_denoiser():
    """For independent positions the exact denoiser attains −log p(x_0) in expectation over t and x_t."""
    process = Absorbing(3)
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    n, positions = 20_000, 4
    x_0 = torch.multinomial(
        p.float(), n * positions, replacement=True, generator=torch.Generator().manual_seed(0)
    ).view(n, positions)
    t = Draws(1, count=n).uniform() * 0.999 + 0.001
    x_t = process.corrupt(x_0, t, Draws(2, count=n))
    log_p = torch.cat([p.log(), torch.tensor([-1e6], dtype=torch.float64)]).expand(n, positions, 4)
    bound = process.nelbo(x_0, x_t, t, Prediction.from_logits(log_p, x_t))
    truth = -p.log()[x_0].sum(-1)
    assert abs((bound - truth).mean()) < 5 * (bound - truth).std() / n**0.5


def test_an_unknown_schedule_is_named():
    with pytest.raises(SpecError, match="log-linear"):
        Absorbing(3, schedule="loglinear")
