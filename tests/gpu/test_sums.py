"""The mixture's sums, their gradients and the target's draws on the device against the dense formula in float64."""

from dataclasses import replace

import pytest
import torch

from di4c.contracts import Draws
from tests.gpu.cases import moved, with_truth
from tests.mixture.mixture_cases import SUMS, Case, drawn_with_marginals, gradients, oracle_sums, project_sums, system

WHOLE, ROW = 10**9, 1
"""Budgets of a chunk: all rows at once, and one."""

CASES = {
    "one component": Case(components=1, samples=1, states=130, width=33, chunk_bytes=ROW),
    "two states": Case(components=3, states=2, width=8, subs=False, chunk_bytes=WHOLE),
    "no bias": Case(components=16, samples=5, states=300, width=96, bias="none", weighted=True, visible=0.0, sharp_target=True, chunk_bytes=WHOLE),
    "shared bias": Case(components=5, states=130, width=33, weighted=True, chunk_bytes=ROW),
    "bias a position, modulated": Case(
        components=5, samples=3, states=130, width=64, positions=7, bias="per position", modulated=True, visible=0.0, sharp_target=True,
        chunk_bytes=WHOLE,
    ),
    "padded bias, modulated, weighted": Case(
        components=16, samples=3, states=300, width=96, positions=7, bias="padded", subs=False, modulated=True, weighted=True,
        chunk_bytes=10**4,
    ),
    "mostly visible": Case(components=40, states=300, width=64, visible=0.9, chunk_bytes=WHOLE),
    "many components": Case(components=256, samples=16, states=1000, width=64, positions=3, chunk_bytes=WHOLE),
    "a vocabulary": Case(components=16, samples=16, states=50258, width=64, positions=4, visible=0.25, chunk_bytes=ROW),
    "more states": Case(batch=1, components=3, states=130_000, width=32, positions=3, visible=0.0, weighted=True, chunk_bytes=WHOLE),
}  # fmt: skip


def sized(case: Case, device: str) -> Case:
    """The case, small enough for a CPU where that is the device; logits up to about 10, since larger ones are themselves rounded."""
    scale = min(1.0, 3.0 / case.width**0.5)
    if device == "cuda":
        return replace(case, scale=scale)
    small = {"components": 5, "samples": 3, "states": 70, "width": 8, "positions": 3}
    return replace(case, scale=scale, **{name: min(most, getattr(case, name)) for name, most in small.items()})


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """‖got − want‖/‖want‖ where the latter is at least 1e-3."""
    return float((got.double() - want).norm() / want.norm().clamp_min(1e-3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_sums_and_gradients_are_those_of_float64(name, dtype, device, record_property):
    """In bf16 a modulation's features are themselves rounded; everything else is exact products of rounded numbers."""
    case = sized(CASES[name], device)
    made, truth = with_truth(case, dtype, device)
    got, want = project_sums(made), oracle_sums(truth)
    rounded = dtype == torch.bfloat16 and case.modulated
    for sum_name in SUMS:
        error = (got[sum_name] - want[sum_name]).abs().max() / want[sum_name].abs().max().clamp_min(0.5)
        assert error < (0.03 if rounded else 1e-5), sum_name
    errors = [relative(ours, theirs) for ours, theirs in zip(gradients(made, got), gradients(truth, want), strict=True)]
    record_property("gradient_error", max(errors))
    assert max(errors) < (1e-4 if dtype == torch.float32 else 0.03 if rounded else 0.01), errors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["bias a position, modulated", "many components", "a vocabulary"])
def test_two_runs_give_the_same_bits_though_samples_share_a_token(name, dtype, device):
    """Nothing is added atomically, not even for the gradients of tokens that occur several times in a row."""
    made = moved(system(sized(CASES[name], device), dtype), device)
    made.x[:] = made.x[:, :1]
    first, second = ((sums := project_sums(made), gradients(made, sums)) for _ in range(2))
    for name in SUMS:
        assert torch.equal(first[0][name], second[0][name]), name
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_a_chunk_of_all_rows_is_a_chunk_of_each(device):
    """On a GPU more logits than 2³¹: 66 rows of 256 components and 130 000 states."""
    sizes = {"components": 4, "states": 50, "positions": 6}
    if device == "cuda":
        sizes = {"components": 256, "states": 130_000, "positions": 66}
        if torch.cuda.get_device_properties(device).total_memory < 40e9:
            pytest.skip("needs a GPU of 40 GB: logits and their gradient take 18")
    case = Case(batch=1, samples=2, width=32, visible=0.0, scale=0.5, chunk_bytes=10**11, **sizes)
    made = moved(system(case, torch.float32), device)
    some = frozenset({"joint", "marginal", "kl"})
    whole = project_sums(made, some)
    of_whole = gradients(made, whole)
    made.case = replace(case, chunk_bytes=ROW)
    each = project_sums(made, some)
    for name in some:
        torch.testing.assert_close(whole[name], each[name], rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(of_whole, gradients(made, each), strict=True):
        assert relative(ours, theirs.double()) < 1e-4


@pytest.mark.parametrize("name", ["shared bias", "a vocabulary", "many components"])
def test_the_target_is_drawn_as_on_a_cpu_and_its_marginals_are_exact(name, device, record_property):
    """Where rounding decides between two states a draw may differ; how often is reported."""
    case = sized(CASES[name], device)
    made, truth = moved(system(case, torch.float32), device), system(case, torch.float64)
    with torch.no_grad():
        drawn, marginals = drawn_with_marginals(
            made.prediction, Draws(5, count=case.batch, device=device), chunk_bytes=case.chunk_bytes, keep_bytes=10**9
        )
        exact, wanted = drawn_with_marginals(
            truth.prediction, Draws(5, count=case.batch), chunk_bytes=10**9, keep_bytes=10**10
        )
        rows = torch.arange(made.prediction.x_t.numel())
        torch.testing.assert_close(
            marginals.probs(rows.to(device)).double().cpu(), wanted.probs(rows), rtol=1e-4, atol=1e-7
        )
    different = int((drawn.cpu() != exact).sum())
    record_property("differing_tokens", different / drawn.numel())
    assert different <= 1 + 0.002 * drawn.numel()
    if case.subs:
        assert (drawn != case.states - 1).all(), "the mask has no mass"
