"""Estimators of the joint term over a finite prior of λ: expectations over every set of draws, against the exact mixture."""

import itertools
import math

import pytest
import torch

from di4c.contracts import Draws, Prediction, Statistics
from di4c.errors import SpecError
from di4c.mixture.sums import Query, statistics
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.jackknife import Jackknife
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.estimators.own_component import OwnComponent, balanced_nll
from di4c_plugins.latents.categorical import Categorical

K, D, S = 3, 2, 2


def component_table(seed: int, scale: float = 1.0) -> torch.Tensor:
    """log p(x | λ_k) for every x of S^D: [K, S^D] float64, from random product components."""
    g = torch.Generator().manual_seed(seed)
    log_p = (scale * torch.randn(K, D, S, generator=g, dtype=torch.float64)).log_softmax(-1)
    every = torch.tensor(list(itertools.product(range(S), repeat=D)))
    return sum(log_p[:, d, every[:, d]] for d in range(D))


def tuples(components: int) -> torch.Tensor:
    """Every outcome of M independent equal-weight draws of the K atoms: [K^M, M]."""
    return torch.tensor(list(itertools.product(range(K), repeat=components)))


def mixture_nll(table: torch.Tensor) -> torch.Tensor:
    return -(table.logsumexp(0) - math.log(K))


def expected_over_draws(estimator, table: torch.Tensor, components: int) -> torch.Tensor:
    """E over all K^M draws of the estimate of −log p(x): [S^D]."""
    joint = table[tuples(components)].transpose(1, 2)[:, :, None]  # [T, x, 1, M]
    log_weights = torch.full((components,), -math.log(components), dtype=torch.float64)
    correlated, marginal = estimator(Statistics(log_weights, joint=joint.flatten(0, 1)))
    return (correlated + marginal).unflatten(0, joint.shape[:2]).mean(0)


def error_and_gradient_error(estimator, components: int, seed: int) -> tuple[float, float]:
    """Bias of the value and of the gradient in the K·S^D component log-probabilities, both of the mean over x."""
    table = component_table(seed).requires_grad_()
    truth, found = mixture_nll(table).mean(), expected_over_draws(estimator, table, components).mean()
    exact, gradient = (torch.autograd.grad(value, table)[0] for value in (truth, found))
    return (found - truth).item(), float((gradient - exact).norm() / exact.norm())


@pytest.mark.parametrize("seed", range(3))
def test_monte_carlo_is_biased_like_1_over_m_and_the_jackknife_like_1_over_m_squared(seed):
    plain = {m: error_and_gradient_error(MonteCarlo(), m, seed) for m in (4, 8)}
    debiased = {m: error_and_gradient_error(Jackknife(), m, seed) for m in (4, 8)}
    assert plain[4][0] > 0 and 1.7 < plain[4][0] / plain[8][0] < 2.6
    assert abs(debiased[4][0]) < 0.45 * plain[4][0] and abs(debiased[8][0]) < 0.4 * abs(debiased[4][0])
    assert debiased[4][1] < 0.5 * plain[4][1] and debiased[8][1] < 0.3 * plain[8][1]


def test_the_jackknife_is_finite_where_one_component_is_all_there_is():
    joint = torch.tensor([[[0.0, -1e3, -2e3, -3e3]]], requires_grad=True)
    value, _ = Jackknife()(Statistics(torch.zeros(4), joint=joint))
    assert value.isfinite().all() and torch.autograd.grad(value.sum(), joint)[0].isfinite().all()
    with pytest.raises(SpecError, match="at least 2"):
        Jackknife()(Statistics(torch.zeros(1), joint=torch.zeros(1, 1, 1)))


def scored(target: torch.Tensor, components: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All (λ_1, …, λ_M) and x drawn by component 1: indices [T, M] and the law of the pairs, [T, S^D]."""
    chosen = tuples(components)
    return chosen, target[chosen[:, 0]].exp() / len(chosen)


@pytest.mark.parametrize("components", [1, 2, 4])
def test_the_balance_heuristic_is_unbiased_by_enumeration(components):
    """Given x, E Σ_m p_t(x | λ_m) / (M − 1 + p_u(x | λ_m)/p_u(x)) = p_t(x): λ_1 ~ p_u(λ | x), the others ~ p(λ)."""
    student, target = component_table(0), component_table(1)
    chosen, law = scored(target, components)
    of_student, of_target = (t[chosen].transpose(1, 2) for t in (student, target))  # [T, x, M]
    log_target = -mixture_nll(target)
    estimate = (-balanced_nll(of_student, of_target, log_target.expand(len(chosen), -1))).exp()
    given_x = law / law.sum(0)
    torch.testing.assert_close((given_x * estimate).sum(0), (-mixture_nll(student)).exp(), rtol=1e-12, atol=0)


def test_the_balance_heuristic_needs_independent_draws():
    """Without replacement the other components avoid the λ that explains x, and the estimate is too small where that matters."""
    student = target = component_table(0, scale=3.0)
    chosen, law = scored(target, 2)
    distinct = chosen[:, 0] != chosen[:, 1]
    chosen, given_x = chosen[distinct], law[distinct] / law[distinct].sum(0)
    of_both = student[chosen].transpose(1, 2)
    estimate = (-balanced_nll(of_both, of_both, -mixture_nll(target).expand(len(chosen), -1))).exp()
    ratio = (given_x * estimate).sum(0) / (-mixture_nll(student)).exp()
    assert ratio.min() < 0.9 and ratio.max() < 1 + 1e-9


def test_the_jackknife_needs_independent_draws():
    """Of M of K atoms without replacement the bias is about c(1/M − 1/K); the correction leaves about −c/K, independent draws almost 0."""
    table = component_table(0)
    without = torch.tensor(list(itertools.combinations(range(K), 2)))
    joint = table[without].transpose(1, 2).flatten(0, 1)[:, None]
    estimate = (
        Jackknife()(Statistics(torch.full((2,), -math.log(2)), joint=joint))[0].unflatten(0, (len(without), -1)).mean(0)
    )
    left = (estimate - mixture_nll(table)).mean()
    independent = (expected_over_draws(Jackknife(), table, 2) - mixture_nll(table)).mean()
    assert left < 0 and abs(left) > 2 * abs(independent)


def expected_consistency(
    estimator, student: torch.Tensor, target: torch.Tensor, components: int, shared: bool
) -> torch.Tensor:
    """E −log p̂(x), x ~ the target: every λ and every x; shared: the student's first component is the one that drew x."""
    chosen, law = scored(target, components)
    if not shared:
        law = (target.exp().mean(0) / len(chosen)).expand(len(chosen), -1)
    joint, target_joint = (t[chosen].transpose(1, 2).flatten(0, 1)[:, None] for t in (student, target))
    log_weights = torch.full((components,), -math.log(components), dtype=torch.float64)
    value = estimator(Statistics(log_weights, joint=joint, target_joint=target_joint))[0]
    return (law.flatten() * value).sum()


@pytest.mark.parametrize("components", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_own_component_is_less_biased_in_value_and_gradient(components, seed):
    """The target is the student one small step before: a perturbation of it. Bimodal enough that components matter."""
    student = component_table(seed, scale=3.0).requires_grad_()
    target = (student.detach() + 0.1 * component_table(seed + 10)).log_softmax(1)
    truth = (target.exp().mean(0) * mixture_nll(student)).sum()
    (exact,) = torch.autograd.grad(truth, student)
    errors = {}
    for estimator, shared in ((MonteCarlo(), False), (OwnComponent(), True)):
        value = expected_consistency(estimator, student, target, components, shared)
        (gradient,) = torch.autograd.grad(value, student)
        errors[shared] = (abs((value - truth).item()), float((gradient - exact).norm() / exact.norm()))
    assert errors[True][0] < 0.5 * errors[False][0]
    assert errors[True][1] < 0.75 * errors[False][1]


def test_with_one_component_it_is_that_components_likelihood():
    joint = torch.randn(2, 1, 1)
    value, _ = OwnComponent()(Statistics(torch.zeros(1), joint=joint, target_joint=torch.randn(2, 1, 1)))
    torch.testing.assert_close(value, -joint[:, 0, 0])


@pytest.mark.parametrize("estimator", [MonteCarlo(), ControlVariate()], ids=lambda e: type(e).__name__)
def test_a_finite_law_is_marginalised_exactly(estimator):
    """M = "all" with unequal weights: value and gradient of −log Σ_k w_k ∏_d p^d(x^d | λ_k), to rounding."""
    law = Categorical(atoms=K, weights=[0.2, 0.5, 0.3])
    logits = torch.randn(1, K, D, S, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    x, x_t = torch.tensor([[[0, 1]]]), torch.zeros(1, D, dtype=torch.long)
    atoms = law.sample(K, Draws(0))[0].double()
    student = Prediction.from_logits(torch.einsum("mk,bkds->bmds", atoms, logits), x_t)
    student = Prediction(**{**vars(student), "log_weights": law.log_weights(K)})
    target = Prediction.from_logits(torch.randn(1, D, S, dtype=torch.float64), x_t)
    found = estimator(statistics(student, [Query(estimator.needs, x, target)])[0])
    p = logits.softmax(-1)
    each = p[0, :, 0, 0] * p[0, :, 1, 1]
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    exact = -(weights @ each).log()
    if isinstance(estimator, ControlVariate):
        mean = torch.einsum("k,bkds->bds", weights, p)[0]
        q = target.log_p0()[0].exp()
        exact = exact + mean[0, 0].log() + mean[1, 1].log() + (q * (q / mean).log()).sum()
    torch.testing.assert_close(sum(found)[0], exact, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(sum(found)[0], logits)[0], torch.autograd.grad(exact, logits)[0], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_random_subset_of_the_atoms_is_less_biased_than_independent_draws(seed):
    """M = 2 of K = 3 equal atoms: the mean over the subsets lies between the exact value and that of independent draws."""
    table = component_table(seed)
    subsets = torch.tensor(list(itertools.combinations(range(K), 2)))
    spread = -(table[subsets].logsumexp(1) - math.log(2)).mean(0)
    exact, independent = mixture_nll(table), expected_over_draws(MonteCarlo(), table, 2)
    assert (exact <= spread + 1e-12).all() and (spread <= independent + 1e-12).all()
    assert (spread - exact).sum() < 0.6 * (independent - exact).sum()


def test_samples_of_weighted_components_are_averaged_with_their_weights():
    """N enumerated target components of unequal weight: Σ_n w_n (…), not the plain mean."""
    joint = torch.randn(1, 3, 2, dtype=torch.float64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    log_weights = torch.full((2,), -math.log(2), dtype=torch.float64)
    value, _ = MonteCarlo()(Statistics(log_weights, joint=joint, sample_weights=weights))
    torch.testing.assert_close(value[0], -(weights @ (joint[0].logsumexp(-1) - math.log(2))))
