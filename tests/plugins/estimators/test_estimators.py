"""The two estimators of −E log p^θ(x): values, and gradients in expectation, by enumeration."""

import itertools
import math

import torch

from di4c.contracts import Prediction
from di4c.mixture.sums import Query, statistics
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.monte_carlo import MonteCarlo

D, S, M = 3, 3, 4


def logits(seed: int, components: int) -> torch.Tensor:
    return torch.randn(1, components, D, S, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def estimate(estimator, student: torch.Tensor, target: torch.Tensor, x: torch.Tensor):
    x_t = torch.zeros(1, D, dtype=torch.long)
    query = Query(estimator.needs, x, Prediction.from_logits(target, x_t))
    return estimator(statistics(Prediction.from_logits(student, x_t), [query])[0])


def target_law(target: torch.Tensor) -> dict[tuple, float]:
    """Every x with its probability under the target mixture."""
    p = target[0].softmax(-1)
    return {
        x: float(sum(math.prod(float(p[m, d, x[d]]) for d in range(D)) for m in range(len(p))) / len(p))
        for x in itertools.product(range(S), repeat=D)
    }


def expected_gradient(estimator, student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """E_x ∇ of the estimator over the target's exact law."""
    student = student.clone().requires_grad_()
    total = 0.0
    for x, probability in target_law(target).items():
        correlated, marginal = estimate(estimator, student, target, torch.tensor([[x]]))
        total = total + probability * (correlated + marginal).sum()
    return torch.autograd.grad(total, student)[0]


def test_expected_gradients_agree():
    """E ∇ control variate = E ∇ Monte Carlo when q̄ is the target's true marginal."""
    student, target = logits(0, M), logits(1, 2)
    plain = expected_gradient(MonteCarlo(), student, target)
    controlled = expected_gradient(ControlVariate(), student, target)
    torch.testing.assert_close(controlled, plain, rtol=1e-10, atol=1e-12)
    assert plain.abs().max() > 1e-3


def test_values_differ_by_the_marginal_entropies():
    student, target = logits(0, M), logits(1, 2)
    gap = sum(
        p
        * float(
            sum(estimate(MonteCarlo(), student, target, torch.tensor([[x]])))
            - sum(estimate(ControlVariate(), student, target, torch.tensor([[x]])))
        )
        for x, p in target_law(target).items()
    )
    marginals = target[0].softmax(-1).mean(0)
    entropy = float(-(marginals * marginals.log()).sum())
    assert abs(gap - entropy) < 1e-10


def test_one_component_has_no_correlated_part():
    correlated, marginal = estimate(
        ControlVariate(), logits(0, 1), logits(1, 2), torch.tensor([[[0, 1, 2], [2, 2, 0]]])
    )
    assert correlated.abs().max() < 1e-12 and marginal.min() > 0


def test_joint_value_by_hand():
    student = logits(2, M)
    x = torch.tensor([[[0, 1, 2], [2, 2, 0]]])
    p = student[0].softmax(-1)
    by_hand = [
        -math.log(sum(math.prod(float(p[m, d, s]) for d, s in enumerate(row)) for m in range(M)) / M)
        for row in x[0].tolist()
    ]
    nll, zero = estimate(MonteCarlo(), student, logits(1, 2), x)
    assert abs(float(nll) - sum(by_hand) / 2) < 1e-12 and float(zero) == 0


def test_control_variate_is_not_always_the_less_noisy():
    """Uniform on {00, 01, 10}: an exact mixture has constant log p(x) on the support, its control-variate part varies."""
    atoms = torch.tensor([[0, 0], [0, 1], [1, 0]])
    student = torch.nn.functional.one_hot(atoms, 2).double().clamp_min(1e-9).log()[None]
    x_t = torch.zeros(1, 2, dtype=torch.long)
    prediction = Prediction.from_logits(student, x_t)
    found = statistics(prediction, [Query(ControlVariate.needs, atoms[None], prediction)])[0]
    joint = (found.joint + found.log_weights).logsumexp(-1)
    assert joint.var() < 1e-12 < (joint - found.marginal).var()
