"""Chains by transition matrices: the laws of q, exact steps against enumeration, draws against their laws."""

import copy
import functools
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from di4c.contracts import Draws, Prediction, Raw, categorical
from di4c.errors import SpecError
from di4c_plugins.backbones.truncated_logistic import TruncatedLogistic
from di4c_plugins.processes import ctmc, ctmc_bound
from di4c_plugins.processes.birth_death import BirthDeath
from di4c_plugins.processes.chain import search_rows
from di4c_plugins.processes.discretised_gaussian import DiscretisedGaussian
from di4c_plugins.processes.uniform import Uniform

GAUSSIAN = {"rate_sigma": 2.0, "target_sigma": 4.0, "time_base": 3.0, "time_exponential": 100.0}
SIGMAS = 4.5
"""Random checks: the largest deviation, in standard errors, of at most a few dozen frequencies."""


def gaussian(states=6, **options):
    return DiscretisedGaussian(states, **(GAUSSIAN | options))


PROCESSES = {
    "gaussian": gaussian(),
    "birth-death": BirthDeath(6, sigma_min=0.5, sigma_max=30.0),
    "uniform": Uniform(6, speed=8.0),
}


@pytest.fixture(params=sorted(PROCESSES))
def process(request):
    return PROCESSES[request.param]


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def frequencies(x, states):
    return torch.nn.functional.one_hot(x, states).double().mean(0)


def assert_law(x, probs):
    """The draws x [n, ...] have the law probs [..., S], judged state by state."""
    error = (probs * (1 - probs) / len(x)).sqrt()
    assert torch.all((frequencies(x, probs.shape[-1]) - probs).abs() <= SIGMAS * error + 1e-12)


def test_transition_rows_are_laws(process):
    q = process.transition(times(0.001, 0.1, 0.5, 1.0))
    assert (q >= 0).all()
    torch.testing.assert_close(q.sum(-1), torch.ones(4, 6, dtype=torch.float64), rtol=0, atol=1e-14)


def test_transitions_compose(process):
    s, t = times(0.02, 0.3, 0.5), times(0.05, 0.31, 1.0)
    composed = process.transition(s) @ process.transition(t, s)
    torch.testing.assert_close(composed, process.transition(t), rtol=0, atol=1e-13)


def test_ends_of_time(process):
    q = process.transition(times(0.0, 1.0))
    torch.testing.assert_close(q[0], torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(q[1], process.prior_probs.expand(6, 6), rtol=0, atol=1e-3)


def test_transition_solves_the_forward_equation(process):
    """d/dt q_{t|0} = q_{t|0} β(t)R, by a central difference (error of order h²)."""
    t, h = times(0.3), 1e-5
    slope = (process.transition(t + h) - process.transition(t - h)) / (2 * h)
    torch.testing.assert_close(slope, process.transition(t) @ process.rate(t), rtol=0, atol=1e-5)


def test_gaussian_rate_by_its_definition():
    """Neighbours jump towards the centre S/2 − 1 at rate 1, and back as detailed balance says."""
    rate, target = gaussian(8).chain.rate, gaussian(8).prior_probs
    assert target.argmax() == 3
    torch.testing.assert_close(target[:, None] * rate, (target[:, None] * rate).T)
    assert rate[0, 1] == rate[6, 5] == 1.0
    assert torch.isclose(rate[0, 2], torch.tensor(-1 / 4.0, dtype=torch.float64).exp())
    torch.testing.assert_close(rate.sum(1), torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-14)


def test_narrow_target_is_refused():
    with pytest.raises(SpecError, match="larger target_sigma"):
        gaussian(256, target_sigma=4.0)


def test_large_vocabularies_are_refused_before_memory_runs_out():
    with pytest.raises(SpecError, match="at most 4096"):
        Uniform(50_258, speed=5.0)


def test_corrupt_draws_rows_of_q(process):
    n = 20_000
    x_0 = torch.tensor([0, 2, 5])
    x_t = process.corrupt(x_0.expand(n, 3), torch.full((n,), 0.1), Draws(1, count=n))
    assert_law(x_t, process.transition(times(0.1))[0, x_0])


def test_corrupt_at_zero_is_the_data(process):
    x_0 = torch.randint(6, (50, 7), generator=torch.Generator().manual_seed(0))
    assert torch.equal(process.corrupt(x_0, torch.zeros(50), Draws(0, count=50)), x_0)


def test_corrupt_does_not_depend_on_the_split(process):
    x_0 = torch.randint(6, (6, 5), generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.05, 1, 6)
    whole = process.corrupt(x_0, t, Draws(3, count=6))
    parts = [process.corrupt(x_0[k : k + 2], t[k : k + 2], Draws(3, first=k, count=2)) for k in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("states", [1, 2, 5, 64, 100])
def test_search_rows_is_inversion(states):
    generator = torch.Generator().manual_seed(states)
    probs = torch.rand(4, states, generator=generator, dtype=torch.float64)
    probs[:, ::3] = 0
    probs[:, 0 if states == 1 else 1] += 0.1
    rows = torch.randint(4, (300,), generator=generator)
    u = torch.rand(300, generator=generator, dtype=torch.float64)
    found = search_rows(probs.cumsum(-1), rows, u)
    assert torch.equal(found, categorical(probs[rows], u))
    assert (probs[rows, found] > 0).all()


def test_prior(process):
    assert_law(process.prior(2, Draws(2, count=10_000)), process.prior_probs.expand(2, 6))


def a_prediction(size=3, positions=4, components=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_t = torch.randint(6, (size, positions), generator=generator)
    shape = (size, positions, 6) if components == 1 else (size, components, positions, 6)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x_t, Prediction.from_logits(logits, x_t)


def by_bayes(process, x_t, p_0, t, s):
    """Σ_{x_0} p(x_0) q(x_s|x_0) q(x_t|x_s)/q(x_t|x_0) in plain loops: [B, D, S]."""
    q_t, q_s, q_ts = process.transition(t), process.transition(s), process.transition(t, s)
    out = torch.zeros_like(p_0)
    for b, d, x_0 in itertools.product(*map(range, p_0.shape)):
        end = x_t[b, d]
        out[b, d] += p_0[b, d, x_0] * q_s[b, x_0] * q_ts[b, :, end] / q_t[b, x_0, end]
    return out


def test_step_probs_by_bayes(process):
    x_t, prediction = a_prediction()
    t, s = times(0.2, 0.2, 0.7), times(0.1, 0.15, 0.3)
    p_0 = prediction.log_p0().exp()
    got = process.step_probs(x_t, p_0, t, s)
    torch.testing.assert_close(got, by_bayes(process, x_t, p_0, t, s), rtol=0, atol=1e-6)
    torch.testing.assert_close(got.sum(-1), torch.ones(3, 4, dtype=torch.float64))


def test_posterior_draws_the_step(process):
    n = 20_000
    x_t, prediction = a_prediction(size=1, positions=3)
    t, s = times(0.2), times(0.08)
    probs = process.step_probs(x_t, prediction.log_p0().exp(), t, s)[0]
    logits = prediction.features.expand(n, 3, 6)
    many = Prediction.from_logits(logits, x_t.expand(n, 3))
    x_s = process.posterior(x_t.expand(n, 3), many, t.expand(n), s.expand(n), Draws(5, count=n))
    assert_law(x_s, probs)


def test_posterior_at_zero_draws_x_0(process):
    x_t, _ = a_prediction()
    x_0 = (x_t + 1) % 6
    point = Prediction.point(x_0, x_t, 6)
    assert torch.equal(process.posterior(x_t, point, torch.full((3,), 0.3), torch.zeros(3), Draws(0, count=3)), x_0)


def test_posterior_log_prob_is_that_of_the_step(process):
    x_t, prediction = a_prediction(components=2)
    x_s, _ = a_prediction(seed=9)
    t, s = times(0.2, 0.2, 0.7), times(0.1, 0.15, 0.3)
    got = process.posterior_log_prob(x_s, x_t, prediction, t, s)
    for m in range(2):
        p_0 = prediction.features.unflatten(0, (3, 2))[:, m].softmax(-1)
        probs = process.step_probs(x_t, p_0, t, s)
        torch.testing.assert_close(got[:, m], probs.gather(-1, x_s[..., None]).log().sum((1, 2)))


def test_posterior_log_prob_at_zero(process):
    x_t, prediction = a_prediction(components=2)
    x_0, _ = a_prediction(seed=9)
    got = process.posterior_log_prob(x_0, x_t, prediction, torch.full((3,), 0.2), torch.zeros(3))
    torch.testing.assert_close(got, prediction.log_prob_of(x_0))


def test_unreachable_x_0_gives_a_law():
    """At tiny t, x_0 far from x_t: no overflow; x_s stays with x_0, as at s = 0."""
    process = gaussian(64, target_sigma=512.0)
    x_t, x_0 = torch.zeros(1, 1, dtype=torch.long), torch.full((1, 1), 63)
    point = torch.nn.functional.one_hot(x_0, 64).double()
    probs = process.step_probs(x_t, point, times(1e-5), times(5e-6))
    assert torch.isclose(probs.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert probs[0, 0, 63] > 0.4


def test_reverse_rates_are_the_limit_of_steps(process):
    """p(x_{t−h} = y|x_t)/h for y ≠ x_t; the error is of order h·rate (and ratio_floor/h, hence a small one)."""
    process, h = copy.copy(process), 1e-8
    process.ratio_floor = 1e-15
    x_t, prediction = a_prediction()
    t, p_0 = times(0.2, 0.4, 0.7), prediction.log_p0().exp()
    rates = process.reverse_rates(process.tables(t), x_t, p_0, t)
    limit = (process.step_probs(x_t, p_0, t, t - h) / h).scatter(-1, x_t[..., None], 0.0)
    torch.testing.assert_close(rates, limit, rtol=1e-2, atol=1e-2)


class EnumeratedData:
    """A law on {0, 1, 2}^D, its noised versions and exact denoisers, by enumeration."""

    def __init__(self, process, positions):
        generator = torch.Generator().manual_seed(positions)
        self.process, self.positions = process, positions
        self.states = torch.tensor(list(itertools.product(range(3), repeat=positions)))
        self.probs = torch.rand(len(self.states), generator=generator, dtype=torch.float64).pow(3)
        self.probs /= self.probs.sum()

    def joint(self, t):
        """p(x_0, x_t): [X, X]."""
        q = self.process.transition(times(t))[0]
        return self.probs[:, None] * q[self.states[:, None], self.states[None]].prod(-1)

    def denoiser(self, t):
        """The exact marginals p(x_0^d|x_t): [X, D, 3] over x_t."""
        given = self.joint(t) / self.joint(t).sum(0)
        return torch.einsum("ax,ads->xds", given, torch.nn.functional.one_hot(self.states, 3).double())

    def expected_bound(self, sharpen=1.0):
        """E over x_0, x_t and t ~ U[0, 1] (Gauss–Legendre) of the bound, for marginals ∝ exact^sharpen."""
        x = torch.cartesian_prod(*[torch.arange(len(self.states))] * 2)
        total = 0.0
        for t, weight in quadrature(self.process.min_time):
            x_0, x_t = self.states[x[:, 0]], self.states[x[:, 1]]
            p_0 = self.denoiser(t)[x[:, 1]].pow(sharpen)
            prediction = Prediction.from_logits(p_0.clamp_min(1e-300).log(), x_t)
            bound = self.process.nelbo(x_0, x_t, torch.full((len(x),), t, dtype=torch.float64), prediction)
            total += weight * float((self.joint(t).flatten() * bound).sum())
        return total

    def entropy(self):
        return float(-torch.xlogy(self.probs, self.probs).sum())

    def prior_error(self):
        """KL(q_1 ‖ prior)."""
        q_1 = self.joint(1.0).sum(0)
        return float((q_1 * (q_1 / self.process.prior_probs[self.states].prod(-1)).log()).sum())

    def product_error(self):
        """E_{τ ~ U[0, min_time]} KL(p(x_0|x_τ) ‖ ∏_d p(x_0^d|x_τ)): what the last, product step loses."""
        total = 0.0
        for t, weight in quadrature(self.process.min_time):
            if t < self.process.min_time:
                product = self.denoiser(t).permute(1, 0, 2)
                product = torch.stack([product[d][:, self.states[:, d]] for d in range(self.positions)]).prod(0)
                joint = self.joint(t)
                gap = (joint * (joint / joint.sum(0) / product.T).log()).sum()
                total += weight / self.process.min_time * float(gap)
        return total


def quadrature(split, nodes=12):
    """Nodes and weights for the integral over [0, 1], pieced at `split`."""
    import numpy as np

    x, w = np.polynomial.legendre.leggauss(nodes)
    for low, high in ((0.0, split), (split, 1.0)):
        yield from zip((low + (high - low) * (x + 1) / 2).tolist(), (w * (high - low) / 2).tolist(), strict=True)


@pytest.mark.parametrize("positions", [1, 2])
def test_bound_is_tight_for_the_exact_denoiser(positions):
    """E bound = H(data) + KL(q_1 ‖ prior) + the last product step's loss; quadrature error about 1e-4."""
    process = DiscretisedGaussian(
        3, rate_sigma=2.0, target_sigma=2.0, time_base=0.5, time_exponential=10.0, min_time=0.1, ratio_floor=1e-14
    )
    data = EnumeratedData(process, positions)
    exact = data.entropy() + data.prior_error() + data.product_error()
    assert data.expected_bound() == pytest.approx(exact, abs=1e-3)
    assert data.expected_bound(sharpen=0.5) > exact + 0.02
    assert data.expected_bound(sharpen=2.0) > exact + 0.02


def test_bound_in_blocks_and_its_gradient(monkeypatch):
    process = gaussian()
    x_t, prediction = a_prediction(positions=7)
    x_0, _ = a_prediction(positions=7, seed=3)
    results = []
    for budget in (ctmc.CHUNK_BYTES, 3 * 2 * 6 * 8):
        monkeypatch.setattr(ctmc, "CHUNK_BYTES", budget)
        logits = prediction.features.clone().requires_grad_()
        bound = process.nelbo(x_0, x_t, times(0.004, 0.3, 0.9), Prediction.from_logits(logits, x_t))
        results.append((bound.detach(), torch.autograd.grad(bound.sum(), logits)[0]))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
        assert one.isfinite().all()


def test_bound_is_never_below_the_relative_entropy_of_zero():
    """The integrand is a relative entropy: non-negative for any prediction, zero when it is certain of the truth."""
    process = gaussian(ratio_floor=1e-15)
    x_t, prediction = a_prediction()
    x_0, _ = a_prediction(seed=4)
    t = times(0.1, 0.5, 0.9)
    gap = ctmc_bound._prior_gap(process, x_0)
    assert (process.nelbo(x_0, x_t, t, prediction) >= gap - 1e-12).all()
    certain = Prediction.point(x_0, x_t, 6)
    torch.testing.assert_close(process.nelbo(x_0, x_t, t, certain).double(), gap, rtol=1e-6, atol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_tensor_of_all_positions_and_states(monkeypatch):
    """S = 64, D = 768: noising, a step and the bound with its gradient stay within the chunk budget."""
    size, positions, states, budget = 8, 768, 64, 2**18
    process = gaussian(states, target_sigma=128.0)
    monkeypatch.setattr(ctmc, "CHUNK_BYTES", budget)
    monkeypatch.setattr(Prediction, "chunks", functools.partialmethod(Prediction.chunks, budget))
    t = torch.linspace(0.05, 0.95, size, dtype=torch.float64)
    x_0 = torch.randint(states, (size, positions), generator=torch.Generator().manual_seed(0))
    moments = torch.zeros(size, positions, 2, requires_grad=True)
    with LargestTensor() as largest:
        x_t = process.corrupt(x_0, t, Draws(0, count=size))
        prediction = Prediction(moments, x_t, TruncatedLogistic(states), Raw(), states)
        with torch.no_grad():
            process.posterior(x_t, prediction, t, t / 2, Draws(1, count=size))
            process.posterior_log_prob(x_t, x_t, prediction, t, t / 2)
        process.nelbo(x_0, x_t, t, prediction).mean().backward()
    assert moments.grad.isfinite().all()
    assert largest.elements <= budget < size * positions * states
