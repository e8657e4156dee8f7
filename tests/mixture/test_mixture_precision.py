"""bf16 features with float32 reductions, autocast, activation checkpointing and torch.compile around the hand-written path."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from di4c.draws import Draws
from di4c.kernels.products import product
from di4c.mixture.sums import Query, statistics
from tests.losses.test_objective import batch, make
from tests.mixture.mixture_cases import (
    SUMS,
    Case,
    drawn_with_marginals,
    gradients,
    opaque,
    oracle_sums,
    project_sums,
    system,
)

CASE = Case(batch=2, components=3, samples=2, positions=5, states=6, width=4, visible=0.4)


def exact_in_bf16(case: Case, dtype: torch.dtype):
    """The case with features and weights of few bits, so that logits are the same numbers in bf16 and in float64."""
    made = system(case, dtype)
    for tensor in made.parameters:
        tensor.data = (tensor.data * 2).round().clamp(-2, 2).to(dtype) / 2
    return made


@pytest.mark.parametrize("path", [lambda made: made, opaque])
@pytest.mark.parametrize("bias", ["none", "shared", "per position"])
def test_bf16_features_are_reduced_in_float32(path, bias):
    case = Case(**{**vars(CASE), "bias": bias})
    made, truth = path(exact_in_bf16(case, torch.bfloat16)), exact_in_bf16(case, torch.float64)
    got, want = project_sums(made), oracle_sums(truth)
    for name in SUMS:
        assert got[name].dtype == torch.float64
        torch.testing.assert_close(got[name].double(), want[name], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(made, got), gradients(truth, want), strict=True):
        assert ours.dtype == torch.bfloat16  # 8 bits: a relative error of 2^-8 in each of the terms that are added
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-2, atol=2e-2 * theirs.abs().max().item())


def test_a_target_without_weights_in_hand_is_read_under_autocast_in_both_passes():
    """Its narrow features meet wide weights in its own output head, which only autocast brings together."""
    target, found = opaque(system(replace(CASE, seed=1), torch.float32)).prediction, []
    for dtype in (torch.bfloat16, torch.float32):
        made, features = system(CASE, torch.float32), target.features.detach().to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            query = Query(frozenset({"kl"}), None, replace(target, features=features))
            kl = statistics(made.prediction, [query], chunk_bytes=100)[0].kl
        found.append((kl, *gradients(made, {"kl": kl})))
    for narrow, wide in zip(*found, strict=True):
        torch.testing.assert_close(narrow, wide, rtol=3e-2, atol=3e-2 * wide.abs().max().item())


@pytest.mark.parametrize("path", [lambda made: made, opaque])
def test_autocast_lowers_the_products_only(path):
    made, truth = path(exact_in_bf16(CASE, torch.float32)), exact_in_bf16(CASE, torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = project_sums(made)
    want = oracle_sums(truth)
    for name in SUMS:
        torch.testing.assert_close(got[name].double(), want[name], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(made, got), gradients(truth, want), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-2, atol=2e-2 * theirs.abs().max().item())


@pytest.mark.parametrize("path", [lambda made: made, opaque])
def test_autocast_narrows_no_bias_of_a_position(path):
    """It is added to what the product gives; bfloat16 would round 20 + 1/64 to 20."""
    case = replace(CASE, bias="per position")
    made, truth = exact_in_bf16(case, torch.float32), exact_in_bf16(case, torch.float64)
    for one in (made, truth):
        uneven = torch.arange(one.prediction.output_head.bias.numel()) % 2
        one.prediction.output_head.bias.data += (20 + uneven / 64).view_as(one.prediction.output_head.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = project_sums(path(made))
    want = oracle_sums(truth)
    for name in SUMS:
        torch.testing.assert_close(got[name].double(), want[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", [lambda made: made, opaque])
def test_posterior_weights_survive_the_sum_over_many_positions(path):
    """A joint of −20,000 nats: summed in float32 it leaves gradients that are off by 4e-3."""
    case = Case(
        batch=1,
        components=8,
        samples=2,
        positions=1024,
        states=500,
        width=16,
        bias="none",
        subs=False,
        chunk_bytes=10**6,
    )
    made, truth = path(system(case, torch.float32)), system(case, torch.float64)
    for one in (made, truth):  # components that differ little, so that several of them explain a sample
        features = one.prediction.features.data
        features.copy_(1.5 * features[:1] + 0.005 * features)
    got, want = project_sums(made, frozenset({"joint"})), oracle_sums(truth)["joint"]
    assert want.max() < -1e4 and (-torch.special.entr(want.softmax(-1)).sum(-1)).neg().exp().min() > 1.5
    assert (got["joint"].softmax(-1) - want.softmax(-1)).abs().max() < 1e-4
    for ours, theirs in zip(gradients(made, got), gradients(truth, {"joint": want}), strict=True):
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("keep_bytes", [0, 10**6])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{"bias": "shared"}, {"bias": "per position", "modulated": True}])
def test_a_mixture_is_its_own_target_in_every_mix_of_dtypes(options, features, weights, autocast, keep_bytes):
    """Features, weights and autocast's products of different dtypes: no divergence, no gradient, kept or read again."""
    made = exact_in_bf16(Case(**{**vars(CASE), **options}), torch.float32)
    prediction, modulation = made.prediction, made.prediction.modulation
    prediction.output_head.to(weights)
    if modulation is not None:
        modulation = replace(
            modulation, module=modulation.module.to(features), code=modulation.code.detach().to(features)
        )
    h = prediction.features.detach().to(features).requires_grad_()
    own = replace(prediction, features=h.detach(), modulation=modulation)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        _, marginals = drawn_with_marginals(own, Draws(0, count=2), keep_bytes=keep_bytes)
        found = statistics(replace(own, features=h), [Query(frozenset({"kl"}), None, marginals)], chunk_bytes=100)[0]
    (gradient,) = torch.autograd.grad(found.kl.sum(), h)
    assert found.kl.abs().max() < 1e-5 and gradient.abs().max() < 1e-5


@pytest.mark.parametrize("estimator", ["monte-carlo", "control-variate"])
@pytest.mark.parametrize("head", ["late", "readout"])
@pytest.mark.parametrize("chunk_bytes", [1, 10**6])
def test_an_objective_under_autocast_is_near_the_one_in_single_precision(head, estimator, chunk_bytes):
    """With every term; as DeepSpeed's torch_autocast runs it: the forward pass inside, the backward pass outside of it."""
    losses, norms = [], []
    for autocast in (False, True):
        objective = make(head, estimator, chunk_bytes=chunk_bytes)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            losses.append(objective(batch(), Draws(3, count=6), 0)["loss"])
        losses[-1].mean().backward()
        norms.append(torch.stack([p.grad.norm() for p in objective.parameters() if p.grad is not None]).norm())
    torch.testing.assert_close(*losses, rtol=0.05, atol=0.2)
    torch.testing.assert_close(*norms, rtol=0.1, atol=0.0)


def test_inside_an_activation_checkpoint():
    made, again = system(CASE, torch.float64), system(CASE, torch.float64)
    names = sorted(SUMS)

    def sums(features):
        prediction = made.prediction
        object.__setattr__(prediction, "features", features)
        found = project_sums(made)
        return tuple(found[name] for name in names)

    features = made.prediction.features
    got = dict(zip(names, checkpoint(sums, features, use_reentrant=False), strict=True))
    want = project_sums(again)
    for ours, theirs in zip(gradients(made, got), gradients(again, want), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_inside_a_compiled_function():
    made, again = system(CASE, torch.float32), system(CASE, torch.float32)

    def total(scale):
        return sum(value.sum() for value in project_sums(made).values()) * scale

    want = torch.autograd.grad(sum(value.sum() for value in project_sums(again).values()) * 2.0, again.parameters)
    value = torch.compile(total, backend="aot_eager")(torch.tensor(2.0))
    for ours, theirs in zip(torch.autograd.grad(value, made.parameters), want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [None, torch.tensor([1.0, -2.0, 0.5, 3.0])])
def test_products_of_narrow_factors_on_a_gpu_have_their_bias(bias, monkeypatch):
    """Where there is no Triton, whose kernels would add it. The library's product is stood in for."""
    h, weight = torch.randn(3, 2).bfloat16(), torch.randn(4, 2).bfloat16()
    monkeypatch.setattr(torch, "mm", lambda left, right, out_dtype: h.to(out_dtype) @ right.to(out_dtype))
    found = product(SimpleNamespace(dtype=h.dtype, is_cuda=True), weight, bias)
    torch.testing.assert_close(found, torch.nn.functional.linear(h.float(), weight.float(), bias))
