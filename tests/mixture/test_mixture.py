"""The chunked sums against the plain formula, values and every gradient, over random shapes and degenerate cases."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings

from tests.mixture.mixture_cases import (
    SUMS,
    Case,
    cases,
    certain,
    gradients,
    opaque,
    oracle_sums,
    project_sums,
    system,
    underflowing,
)  # fmt: skip

PATHS = {"affine": lambda made: made, "generic": opaque}
thorough = settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def close(got, want, relative: float) -> None:
    """Equal within `relative` of the tensor's largest magnitude, or of ½ if it is smaller: then terms of order 1 cancel."""
    assert got.shape == want.shape and got.isfinite().all()
    scale = max(want.abs().max().item(), 0.5) if want.numel() else 0.0
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=relative * scale)


def compare(case: Case, path: str, dtype: torch.dtype, relative: float) -> None:
    made, truth = PATHS[path](system(case, dtype)), system(case, torch.float64)
    assert made.prediction.is_affine == (path == "affine")
    got, want = project_sums(made), oracle_sums(truth)
    for name in SUMS:
        close(got[name], want[name], relative)
    for ours, theirs in zip(gradients(made, got), gradients(truth, want), strict=True):
        close(ours, theirs, relative)


@pytest.mark.parametrize("path", PATHS)
@given(case=cases)
@example(case=Case(components=1, samples=1))
@example(case=Case(visible=1.0))
@example(case=Case(batch=1, positions=1, visible=0.0))
@example(case=Case(states=2, subs=False))
@example(case=Case(states=2, subs=True))
@example(case=Case(subs=False, scale=300.0, sharp_target=True))
@example(case=Case(subs=True, scale=3000.0, sharp_target=True, weighted=True))
@thorough
def test_sums_and_gradients_are_those_of_the_plain_formula(path, case):
    compare(case, path, torch.float64, 1e-9)


@pytest.mark.parametrize("path", PATHS)
@given(case=cases)
@thorough
def test_single_precision_is_within_1e_5(path, case):
    """For logits up to about 10: larger ones are themselves rounded by more than the tolerance allows."""
    compare(replace(case, scale=min(case.scale, 1.0), sharp_target=False), path, torch.float32, 1e-5)


@pytest.mark.parametrize(
    "needs", [{"joint"}, {"joint", "marginal"}, {"kl"}, {"componentwise_kl"}, {"kl", "componentwise_kl"}]
)
def test_any_subset_of_the_sums_can_be_asked_for(needs):
    made, truth = system(Case(), torch.float64), system(Case(), torch.float64)
    got, want = project_sums(made, frozenset(needs)), oracle_sums(truth)
    for name in needs:
        close(got[name], want[name], 1e-10)
    wanted = gradients(truth, {name: want[name] for name in needs})
    for ours, theirs in zip(gradients(made, got), wanted, strict=True):
        close(ours, theirs, 1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_states_without_probability_in_every_component(path):
    """p̄ underflows where the target has mass: values and gradients stay those of the logarithmic formula."""
    made, truth = underflowing(torch.float32), underflowing(torch.float64)
    got, want = project_sums(PATHS[path](made)), oracle_sums(truth)
    assert want["kl"] > 30
    for name in SUMS:
        close(got[name], want[name], 1e-5)
    for ours, theirs in zip(gradients(made, got), gradients(truth, want), strict=True):
        close(ours, theirs, 1e-5)


def test_certain_components_and_targets():
    """Probabilities of exactly 0 and 1, where 0·log 0 must be 0."""
    made, truth = certain(torch.float64), certain(torch.float64)
    got, want = project_sums(made), oracle_sums(truth)
    assert want["kl"].abs().max() == 0
    for name in SUMS:
        close(got[name], want[name], 1e-9)
    for ours, theirs in zip(gradients(made, got), gradients(truth, want), strict=True):
        close(ours, theirs, 1e-9)


def test_frozen_weights_get_no_gradient():
    made = system(Case(), torch.float64)
    made.prediction.output_head.requires_grad_(False)
    total = sum(value.sum() for value in project_sums(made).values())
    total.backward()
    assert made.prediction.features.grad.abs().sum() > 0
    assert all(p.grad is None for p in made.prediction.output_head.parameters())


def test_chunking_does_not_matter():
    whole, pieces = system(Case(chunk_bytes=10**9), torch.float64), system(Case(chunk_bytes=1), torch.float64)
    one, many = project_sums(whole), project_sums(pieces)
    for name in SUMS:
        close(many[name], one[name], 1e-12)
    for ours, theirs in zip(gradients(pieces, many), gradients(whole, one), strict=True):
        close(ours, theirs, 1e-12)
