"""MDLM's ancestral sampler and the analytic one: their laws by enumeration, caching, the last pass, prompts."""

from types import SimpleNamespace

import pytest
import torch

from di4c.contracts import Draws, Prediction
from di4c.errors import SpecError
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.samplers.analytic import Analytic, analytic_probs
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral, gumbel_argmax, most_likely, reverse_probs

STATES = 4  # three tokens and the mask
MASK = 3
LOGITS = torch.tensor([0.3, -0.5, 1.1, 0.0])


class Counting:
    """A denoiser with the same logits everywhere that counts its calls."""

    def __init__(self, process: Mdlm) -> None:
        self.subs, self.calls = Subs(process), 0

    def __call__(self, x_t, t, cond=None) -> Prediction:
        self.calls += 1
        return Prediction.from_logits(LOGITS.expand(*x_t.shape, STATES), x_t, self.subs)


def masks(batch: int, positions: int = 5) -> torch.Tensor:
    return torch.full((batch, positions), MASK)


def within(counts: torch.Tensor, probs: torch.Tensor) -> bool:
    """Frequencies within five standard errors of the probabilities."""
    n = counts.sum()
    return bool(((counts / n - probs).abs() < 5 * (probs * (1 - probs) / n).sqrt() + 1e-9).all())


@pytest.mark.parametrize("draw", ["exact", "gumbel"])
def test_a_step_has_the_law_of_the_posterior(draw):
    process = Mdlm(STATES - 1)
    t, s = torch.full((4000,), 0.8, dtype=torch.float64), torch.full((4000,), 0.5, dtype=torch.float64)
    x_s = MdlmAncestral(process, draw=draw).step(Counting(process), masks(4000), t, s, None, Draws(1, count=4000))
    p = LOGITS[:3].softmax(0).double() * 0.3 / 0.8
    assert within(torch.bincount(x_s.flatten(), minlength=STATES).double(), torch.cat([p, torch.tensor([0.5 / 0.8])]))


def test_the_analytic_step_has_the_same_law_when_probabilities_sum_to_one():
    process = Mdlm(STATES - 1)
    log_p = Subs(process).log_probs(LOGITS.double().expand(2, 1, STATES), torch.tensor([MASK, 1]))[:, 0]
    t, s = torch.tensor([0.8, 0.8]), torch.tensor([0.5, 0.5])
    m_t, m_s = process.schedule.masked(t.double()), process.schedule.masked(s.double())
    probs = analytic_probs(log_p, torch.tensor([MASK, 1]), process.sigma(t.double()), process.sigma(s.double()), MASK)
    torch.testing.assert_close(
        probs[0], reverse_probs(log_p[:1], m_t[:1], m_s[:1], MASK)[0] / m_t[0], rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(probs[1], torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [MdlmAncestral, Analytic])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_samples_have_no_mask_and_the_right_law(kind, epsilon):
    process = Mdlm(STATES - 1, epsilon=epsilon)
    x = kind(process).sample(Counting(process), masks(2000), 4, None, Draws(2, count=2000))
    assert within(torch.bincount(x.flatten(), minlength=STATES).double()[:3], LOGITS[:3].softmax(0).double())
    assert (x != MASK).all()


def test_caching_saves_calls_and_changes_nothing_for_networks_that_ignore_time():
    process = Mdlm(STATES - 1)
    plain, cached = Counting(process), Counting(process)
    x = MdlmAncestral(process).sample(plain, masks(1), 40, None, Draws(3))
    y = MdlmAncestral(process, cached=True).sample(cached, masks(1), 40, None, Draws(3))
    assert torch.equal(x, y)
    assert plain.calls == 40 and cached.calls <= 6  # five positions change the sequence five times at most


def test_the_last_pass_fills_by_argmax_or_by_a_draw():
    process = Mdlm(STATES - 1)
    argmax, drawn = MdlmAncestral(process, end=0.9), MdlmAncestral(process, end=0.9, final="draw")
    denoiser = Counting(process)
    x = argmax.sample(denoiser, masks(300), 1, None, Draws(4, count=300))
    assert denoiser.calls == 2
    assert (x == 2).double().mean() > 0.9  # nine in ten are filled by the likeliest token
    y = drawn.sample(denoiser, masks(3000), 1, None, Draws(4, count=3000))
    assert within(torch.bincount(y.flatten(), minlength=STATES).double()[:3], LOGITS[:3].softmax(0).double())


def test_prompts_stay():
    process = Mdlm(STATES - 1)
    x_1 = masks(50)
    x_1[:, 0], x_1[:, 3] = 0, 1  # an infill: the middle and the end are free
    for sampler in (MdlmAncestral(process), MdlmAncestral(process, draw="gumbel"), Analytic(process)):
        x = sampler.sample(Counting(process), x_1, 3, None, Draws(5, count=50))
        assert (x[:, 0] == 0).all() and (x[:, 3] == 1).all() and (x != MASK).all()


def test_the_grid_of_steps():
    assert MdlmAncestral(Mdlm(3)).times(2) == pytest.approx([1.0, 0.500005, 0.0])


def test_gumbel_argmax_and_most_likely():
    weights = torch.tensor([[0.2, 0.5, 0.3]])
    assert gumbel_argmax(weights, torch.full((1, 3), 0.5)).item() == 1
    assert most_likely(weights.log(), mask_index=1).item() == 2


@pytest.mark.parametrize("make", [lambda p: MdlmAncestral(p), lambda p: Analytic(p)])
def test_processes_without_a_mask_are_refused(make):
    with pytest.raises(SpecError, match="no mask state"):
        make(SimpleNamespace(mask_index=None))
