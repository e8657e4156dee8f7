"""The confidence and Halton samplers on a denoiser that can be calculated by hand."""

import pytest
import torch

from di4c.contracts import Draws, Prediction
from di4c.errors import SpecError
from di4c_plugins.processes.maskgit import MaskGITProcess
from di4c_plugins.samplers.halton import HaltonSampler, halton_order
from di4c_plugins.samplers.maskgit import MaskGITSampler, reveal_counts

SIDE, STATES = 4, 3
D = SIDE * SIDE
PROCESS = MaskGITProcess(STATES)
MASK = PROCESS.mask_index


class Calls:
    """Logits that favour state (position mod 3), the more the later the position; keeps what it was asked."""

    def __init__(self, mask_logit=0.0):
        self.x_t, self.t, self.cond = [], [], []
        self.mask_logit = mask_logit

    def __call__(self, x_t, t, cond):
        self.x_t.append(x_t.clone()), self.t.append(t.clone()), self.cond.append(cond)
        position = torch.arange(D)
        logits = torch.zeros(D, STATES + 1)
        logits[position, position % STATES] = 2.0 + position.float()
        logits[:, MASK] = self.mask_logit
        return Prediction.from_logits(logits.expand(len(x_t), -1, -1).clone(), x_t)


def start(num=2):
    return torch.full((num, D), MASK)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 16, 40])
def test_each_step_reveals_the_scheduled_number_and_keeps_what_is_visible(steps):
    calls = Calls()
    x_0 = MaskGITSampler(PROCESS).sample(calls, start(), steps, None, Draws(seed=1, count=2))
    assert (x_0 < STATES).all()
    counts = reveal_counts(PROCESS.schedule, D, steps)
    assert counts.sum() == D
    seen = [(x_t != MASK).sum(1) for x_t in calls.x_t] + [torch.full((2,), D)]
    for now, then, count in zip(seen[:-1], seen[1:], counts.tolist(), strict=False):
        assert (then - now == count).all() or (then == D).all()
    for now, then in zip(calls.x_t[:-1], calls.x_t[1:], strict=True):
        assert torch.equal(then[now != MASK], now[now != MASK])


def test_without_noise_the_most_confident_come_first():
    calls = Calls()
    MaskGITSampler(PROCESS, annealing="none").sample(calls, start(), 4, None, Draws(seed=2, count=2))
    revealed = (calls.x_t[1] != MASK)[0].nonzero().flatten()
    assert revealed.tolist() == list(range(D - len(revealed), D))


def test_random_annealing_ignores_confidence_and_linear_annealing_fades():
    """Mean place of the first tokens revealed: uniform if random, the confident end without noise, between with it."""
    means = {}
    for annealing in ("random", "linear", "none"):
        calls = Calls()
        sampler = MaskGITSampler(PROCESS, annealing=annealing, gumbel_temperature=0.05)
        sampler.sample(calls, start(400), 4, None, Draws(seed=3, count=400))
        means[annealing] = (calls.x_t[1] != MASK).nonzero()[:, 1].double().mean().item()
    # 400 examples × 3 tokens, standard deviation of a uniform place 4.6: standard error about 0.13.
    assert abs(means["random"] - (D - 1) / 2) < 0.6
    assert means["random"] < means["linear"] - 0.5
    assert means["linear"] < means["none"]


def test_the_mask_state_is_never_drawn():
    sampler = MaskGITSampler(PROCESS, logit_scale=0.5)
    x_0 = sampler.sample(Calls(mask_logit=30.0), start(), 3, None, Draws(seed=4, count=2))
    assert (x_0 != MASK).all()


def test_the_training_step_rounds_the_number_down_and_counts_from_what_is_visible():
    x_t = start()
    x_t[0, :5] = 1
    t, s = torch.tensor([0.6, 0.6], dtype=torch.float64), torch.tensor([0.55, 0.55], dtype=torch.float64)
    x_s = MaskGITSampler(PROCESS).step(Calls(), x_t, t, s, None, Draws(seed=5, count=2))
    wanted = int((1 - PROCESS.schedule.masked(s[:1])).item() * D)
    assert (x_s[0] != MASK).sum() == max(wanted, 5)
    assert (x_s[1] != MASK).sum() == wanted
    end = torch.zeros(2, dtype=torch.float64)
    clean = MaskGITSampler(PROCESS).step(Calls(), x_t, t, end, None, Draws(seed=6, count=2))
    assert (clean != MASK).all()


class Biased:
    """Log-odds of state 1 against 0: +2 with a label, −1 without."""

    def __init__(self):
        self.batch = []

    def __call__(self, x_t, t, cond):
        self.batch.append(len(x_t))
        logits = torch.zeros(len(x_t), D, STATES + 1)
        logits[..., 1] = torch.where(cond < 0, -1.0, 2.0)[:, None]
        return Prediction.from_logits(logits, x_t)


class FakeTeacher:
    def predict(self, x_t, t, cond):
        assert (cond == -1).all()
        logits = torch.zeros(len(x_t), D, STATES + 1)
        logits[..., 1] = -5.0
        return Prediction.from_logits(logits, x_t)


def test_guidance_extrapolates_from_the_unlabelled_model():
    sampler = MaskGITSampler(PROCESS, guidance=3.0)
    cond, t, model = torch.tensor([0, 1]), torch.ones(2), Biased()
    log_p = sampler.guidance.log_probs(model, start(), t, cond, torch.tensor([0.0, 3.0]))
    odds = log_p[..., 1] - log_p[..., 0]
    torch.testing.assert_close(odds[0], torch.full((D,), 2.0))
    torch.testing.assert_close(odds[1], torch.full((D,), 4 * 2.0 + 3.0))
    assert model.batch == [4]  # one call, so that both halves can share their λ
    led = MaskGITSampler(PROCESS, guidance=3.0, guide="teacher", teacher=FakeTeacher())
    log_p = led.guidance.log_probs(Biased(), start(), t, cond, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close((log_p[..., 1] - log_p[..., 0])[0], torch.full((D,), 2 * 2.0 + 5.0))


def test_the_guidance_weight_grows_from_0_to_its_full_value(monkeypatch):
    seen = []
    sampler = MaskGITSampler(PROCESS, guidance=2.0)
    original = type(sampler.guidance).log_probs
    monkeypatch.setattr(
        type(sampler.guidance), "log_probs", lambda self, *a: (seen.append(a[-1][0].item()), original(self, *a))[1]
    )
    for steps, expected in ((4, [0, 2 / 3, 4 / 3, 2]), (1, [0])):
        seen.clear()
        sampler.sample(Biased(), start(), steps, torch.tensor([0, 1]), Draws(seed=7, count=2))
        assert seen == pytest.approx(expected)


def test_guidance_without_labels_or_without_a_teacher_is_an_error():
    with pytest.raises(SpecError, match="guidance needs class labels"):
        MaskGITSampler(PROCESS, guidance=1.0).sample(Calls(), start(), 2, None, Draws(seed=8, count=2))
    with pytest.raises(SpecError, match="needs a teacher"):
        MaskGITSampler(PROCESS, guidance=1.0, guide="teacher")


def test_the_halton_order_visits_every_cell_once_and_spreads_out():
    order = halton_order(SIDE)
    assert sorted(order.tolist()) == list(range(D))
    # Φ_2 = 1/2, 1/4, 3/4, 1/8 and Φ_3 = 1/3, 2/3, 1/9, 4/9 on a 4 × 4 grid.
    assert order[:4].tolist() == [2 * 4 + 1, 1 * 4 + 2, 3 * 4 + 0, 0 * 4 + 1]


@pytest.mark.parametrize("steps", [1, 3, 16])
@pytest.mark.parametrize("shift", [False, True])
def test_halton_sampling_follows_the_order(steps, shift):
    calls = Calls()
    x_0 = HaltonSampler(PROCESS, shift=shift).sample(calls, start(), steps, None, Draws(seed=9, count=2))
    assert (x_0 < STATES).all() and len(calls.x_t) == steps
    if not shift:
        for x_t in calls.x_t:
            visible = (x_t[0] != MASK).sum()
            assert set((x_t[0] != MASK).nonzero().flatten().tolist()) == set(halton_order(SIDE)[:visible].tolist())


def test_halton_keeps_visible_tokens_unless_asked_to_redraw():
    x_t = torch.full((1, D), MASK)
    x_t[0, :4] = 2
    t, s = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    kept = HaltonSampler(PROCESS).step(Calls(), x_t, t, s, None, Draws(seed=10))
    redrawn = HaltonSampler(PROCESS, redraw=True).step(Calls(), x_t, t, s, None, Draws(seed=10))
    assert (kept[0, :4] == 2).all()
    assert not (redrawn[0, :4] == 2).all()
    assert torch.equal(kept != MASK, redrawn != MASK)
