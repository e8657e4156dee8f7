"""Samplers of continuous-time chains, against laws known by enumeration."""

import numpy as np
import pytest
import scipy.stats
import torch

from di4c.contracts import Draws, Prediction, Sampler, Teacher
from di4c.errors import SpecError
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.discretised_gaussian import DiscretisedGaussian
from di4c_plugins.processes.uniform import Uniform
from di4c_plugins.samplers.hybrid import Hybrid
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral
from di4c_plugins.samplers.poisson import poisson
from di4c_plugins.samplers.tau_leaping import PredictorCorrector, TauLeaping
from di4c_plugins.samplers.tauldr_ancestral import TauLDRAncestral

S = 4
PROCESS = DiscretisedGaussian(S, rate_sigma=1.5, target_sigma=3.0, time_base=0.5, time_exponential=20.0)
DATA = torch.tensor([0.1, 0.5, 0.05, 0.35], dtype=torch.float64)
SIGMAS = 4.5
"""Random checks: the largest deviation, in standard errors."""


def denoiser(x_t, t, cond=None):
    """The exact p(x_0|x_t) of independent positions with the law DATA; all times of a batch are equal."""
    q = PROCESS.transition(t[:1])[0]
    joint = DATA[:, None] * q
    table = (joint / joint.sum(0)).T
    return Prediction.from_logits(table[x_t].log(), x_t)


def assert_law(x, probs, bias=0.0):
    """The draws x [n] have the law probs [S], up to a known bias."""
    frequencies = torch.nn.functional.one_hot(x, S).double().mean(0)
    error = (probs * (1 - probs) / len(x)).sqrt()
    assert torch.all((frequencies - probs).abs() <= SIGMAS * error + bias), (frequencies, probs)


def generate(sampler, steps, n, positions=1, seed=0, model=denoiser):
    draws = Draws(seed, count=n)
    x_1 = PROCESS.prior(positions, draws.child("prior"))
    return sampler.sample(model, x_1, steps, None, draws.child("sampler"))


def test_poisson_is_the_quantile_function():
    generator = np.random.default_rng(0)
    mean = np.concatenate(
        [generator.uniform(0, 40, 3000), generator.uniform(20, 5000, 500), [0.0, 1e-12, 30.0, 30.0001]]
    )
    u = np.concatenate([generator.uniform(size=3500), [0.999999, 0.5, 1 - 2**-53, 1 - 2**-53]])
    got = poisson(torch.from_numpy(mean), torch.from_numpy(u)).numpy()
    want = scipy.stats.poisson.ppf(u, mean)
    inner = slice(0, 3502)
    assert np.array_equal(got[inner], want[inner])
    assert np.all(np.abs(got[3502:] - want[3502:]) <= 2), "the last of 2⁵³ levels: rounding of the summed terms"


def test_grid_ends_with_min_time():
    assert TauLDRAncestral(PROCESS).times(1) == [1.0, 0.0]
    assert TauLDRAncestral(PROCESS).times(3) == pytest.approx([1.0, 0.505, 0.01, 0.0])
    with pytest.raises(SpecError, match="min_time"):
        TauLDRAncestral(PROCESS, min_time=0.0)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_ancestral_with_a_last_draw_is_exact(steps):
    """Any number of steps, since the denoiser is exact and positions are independent; x_1's law is q_1 to 1e-3."""
    x = generate(TauLDRAncestral(PROCESS, final="draw"), steps, 20_000)[:, 0]
    assert_law(x, DATA, bias=2e-3)


def test_last_step_by_argmax():
    x_t = torch.tensor([[0, 1, 2, 3]])
    t = torch.tensor([0.01], dtype=torch.float64)
    x_0 = TauLDRAncestral(PROCESS).step(denoiser, x_t, t, torch.zeros(1), None, Draws(0))
    assert torch.equal(x_0, denoiser(x_t, t).log_p0().argmax(-1))


def test_one_leap_is_the_first_order_step():
    """P(x_s = y | x_t) = (t − s)·R̂(x_t, y) + O((t − s)²) for y ≠ x_t."""
    n, t, h = 40_000, 0.4, 1e-2
    x_t = torch.full((n, 1), 2)
    now = torch.full((n,), t, dtype=torch.float64)
    x_s = TauLeaping(PROCESS).step(denoiser, x_t, now, now - h, None, Draws(1, count=n))[:, 0]
    exact = PROCESS.step_probs(x_t[:1], denoiser(x_t[:1], now[:1]).log_p0().exp(), now[:1], now[:1] - h)[0, 0]
    assert_law(x_s, exact, bias=5e-3)
    assert 0.02 < 1 - float(exact[2]) < 0.2, "the step should move something, and be small"


@pytest.mark.parametrize("seed", [0, 1])
def test_tau_leaping_converges_to_the_data(seed):
    """150 leaps; the bias is of the order of a step."""
    x = generate(TauLeaping(PROCESS, final="draw"), 150, 8_000, seed=seed)[:, 0]
    assert_law(x, DATA, bias=0.015)


def test_unordered_states_jump_once_or_stay():
    process = Uniform(S, speed=5.0)
    sampler = TauLeaping(process, ordered=False)
    jumps = torch.tensor([[[0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]])
    assert sampler._moved(torch.tensor([[2, 2, 2]]), jumps).tolist() == [[1, 2, 2]]
    assert TauLeaping(process)._moved(torch.tensor([[2, 2, 1]]), jumps).tolist() == [[1, 2, 2]]


def test_correctors_leave_the_law_as_it_is():
    """x ~ q_s stays so under correctors at s (their step error is of the order of the step), and x does move."""
    n, s = 20_000, torch.full((20_000,), 0.3, dtype=torch.float64)
    draws = Draws(2, count=n)
    q_s = DATA @ PROCESS.transition(s[:1])[0]
    x_0 = torch.searchsorted(DATA.cumsum(0), draws.uniform(1), right=True)
    x = start = PROCESS.corrupt(x_0, s, draws.child("x_s"))
    sampler = TauLeaping(PROCESS)
    for k in range(5):
        x = sampler.leap(denoiser(x, s), x, s, torch.full((n,), 0.01), draws.child(k), forward=True)
    assert_law(x[:, 0], q_s, bias=0.01)
    assert (x != start).double().mean() > 0.1


def test_predictor_corrector_enters_below_its_time():
    calls = []

    def counted(x_t, t, cond=None):
        calls.append(float(t[0]))
        return denoiser(x_t, t)

    sampler = PredictorCorrector(PROCESS, corrector_steps=2, corrector_scale=0.5, corrector_entry_time=0.6)
    generate(sampler, 4, 3, model=counted)
    assert calls == pytest.approx([1.0, 0.67, 0.34, 0.01, 0.01, 0.01])


@pytest.mark.parametrize(
    "sampler",
    [
        TauLDRAncestral(PROCESS),
        TauLeaping(PROCESS),
        PredictorCorrector(PROCESS, corrector_steps=1, corrector_scale=0.5, corrector_entry_time=1.0),
    ],
    ids=["ancestral", "tau-leaping", "predictor-corrector"],
)
def test_samples_do_not_depend_on_the_split(sampler):
    """Rows of a batch are the same alone: positions beyond one block included."""
    positions = 70
    whole = generate(sampler, 3, 4, positions)
    draws = Draws(0, first=2, count=2)
    x_1 = PROCESS.prior(positions, draws.child("prior"))
    part = sampler.sample(denoiser, x_1, 3, None, draws.child("sampler"))
    assert torch.equal(part, whole[2:])


@pytest.mark.parametrize("final", ["argmax", "draw"])
@pytest.mark.parametrize("kind", [TauLDRAncestral, TauLeaping, PredictorCorrector])
def test_a_step_decides_for_each_example_alone_whether_it_ends(kind, final):
    """A batch of which some examples end (s = 0) gives what each gives alone, at one evaluation and its correctors."""
    correctors = {"corrector_steps": 1, "corrector_scale": 0.5, "corrector_entry_time": 0.35}
    sampler = kind(PROCESS, final=final, **correctors if kind is PredictorCorrector else {})
    draws = Draws(3, count=6)
    x_t = PROCESS.prior(70, draws.child("prior"))
    t = torch.tensor([0.5, 0.02, 0.3, 0.4, 0.01, 0.2], dtype=torch.float64)
    s = torch.tensor([0.2, 0.0, 0.1, 0.0, 0.0, 0.15], dtype=torch.float64)
    calls = []

    def counted(x, time, cond=None):
        calls.append(time)
        return mixed_times_denoiser(x, time)

    whole = sampler.step(counted, x_t, t, s, None, draws.child("step"))
    assert len(calls) == sampler.evaluations == 1 + (kind is PredictorCorrector)
    assert all(bool((time > 0).all()) for time in calls)
    for k in range(6):
        one, its = slice(k, k + 1), Draws(3, first=k, count=1).child("step")
        assert torch.equal(sampler.step(mixed_times_denoiser, x_t[one], t[one], s[one], None, its), whole[one]), k
    assert not torch.equal(whole, sampler.step(counted, x_t, t, (s + t) / 2, None, draws.child("step")))


def mixed_times_denoiser(x_t, t, cond=None):
    """`denoiser` for a batch with a time of its own for every example."""
    joint = DATA[:, None] * PROCESS.transition(t)
    table = (joint / joint.sum(1, keepdim=True)).mT
    return Prediction.from_logits(torch.stack([table[b][x_t[b]] for b in range(len(x_t))]).log(), x_t)


def test_a_process_without_rates_is_refused():
    with pytest.raises(SpecError, match="jump rates"):
        TauLeaping(Absorbing(S))


class CountingTeacher(Teacher):
    """A teacher that notes the times at which it is asked."""

    def __init__(self):
        self.times = []

    def predict(self, x_t, t, cond=None):
        self.times.append(float(t[0]))
        return denoiser(x_t, t, cond)


@pytest.mark.parametrize("teacher_steps", [0, 1, 3, 5, 9])
def test_hybrid_hands_the_last_steps_to_the_teacher(teacher_steps):
    teacher, student = CountingTeacher(), CountingTeacher()
    inner = TauLDRAncestral(PROCESS)
    sampler = Hybrid(PROCESS, sampler=inner, teacher_steps=teacher_steps, teacher=teacher)
    x = generate(sampler, 5, 4, model=student.predict)
    grid, taken = inner.times(5)[:5], min(teacher_steps, 5)
    assert student.times == grid[: 5 - taken] and teacher.times == grid[5 - taken :]
    assert isinstance(sampler, Sampler) and sampler.times(5) == inner.times(5)
    assert torch.equal(x, generate(inner, 5, 4)), "teacher and student are the same model here"


class OnAnotherDevice(TauLDRAncestral):
    """Its times are the next larger numbers: other devices round a grid's times otherwise."""

    def step(self, denoiser, x_t, t, s, cond, draws):
        later = lambda x, time, labels: denoiser(x, time.nextafter(torch.ones_like(time) * 2), labels)
        return super().step(later, x_t, t, s, cond, draws)


def test_the_teachers_turn_comes_whatever_rounding_does_to_its_time():
    teacher, student = CountingTeacher(), CountingTeacher()
    sampler = Hybrid(PROCESS, sampler=OnAnotherDevice(PROCESS), teacher_steps=2, teacher=teacher)
    generate(sampler, 5, 4, model=student.predict)
    assert (len(student.times), len(teacher.times)) == (3, 2)


def test_hybrid_refuses_an_inner_sampler_that_keeps_predictions():
    """Where no token changed at the handover, the student's prediction would stand in for the teacher's."""
    masked = Absorbing(S)
    inner = MdlmAncestral(masked, cached=True)
    with pytest.raises(SpecError, match="leave cached out"):
        Hybrid(masked, sampler=inner, teacher_steps=1, teacher=CountingTeacher())
    assert not Hybrid(
        masked, sampler=MdlmAncestral(masked), teacher_steps=1, teacher=CountingTeacher()
    ).keeps_predictions


def test_hybrid_needs_a_teacher():
    with pytest.raises(SpecError, match="teacher"):
        Hybrid(PROCESS, sampler=TauLDRAncestral(PROCESS), teacher_steps=1)
