"""The target's samples and marginals: the right law, kept or read again, whatever the readout."""

from dataclasses import replace

import pytest
import torch

from di4c.contracts import Draws
from di4c.mixture.affine import Affine
from di4c.mixture.buffers import Buffers
from di4c.mixture.marginals import Marginals, mixture_log_weights
from di4c.mixture.sums import Query, statistics
from di4c.mixture.target import draw
from tests.mixture.mixture_cases import Case, Opaque, drawn_with_marginals, opaque, project_sums, system, target_of


def target(**options):
    made = system(Case(batch=2, positions=5, states=4, **options), torch.float32)
    return replace(made.prediction, features=made.prediction.features.detach())


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("bias", ["shared", "per position"])
def test_both_paths_draw_the_same(bias, modulated):
    prediction = target(bias=bias, modulated=modulated, visible=0.4)
    other = replace(prediction, output_head=Opaque(prediction.output_head))
    one, two = (draw(p, Draws(3, count=2), chunk_bytes=100) for p in (prediction, other))
    assert torch.equal(one, two)
    carried = prediction.x_t[:, None].expand_as(one)
    assert torch.equal(one[carried != 3], carried[carried != 3])


def test_samples_follow_their_components():
    prediction = target(components=2, visible=0.0, scale=2.0)
    log_p = prediction.log_probs(torch.arange(10)).exp()  # [B·D, M, S]
    many = torch.stack([draw(prediction, Draws(seed, count=2)) for seed in range(3000)])  # [K, B, M, D]
    frequency = torch.stack([(many == s).float().mean(0) for s in range(4)], -1).transpose(1, 2).flatten(0, 1)
    error = (log_p * (1 - log_p) / 3000).sqrt()
    assert ((frequency - log_p).abs() <= 5 * error + 1e-3).all()


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("subs", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_kept_marginals_are_those_read_again(modulated, subs, weighted):
    prediction = target(modulated=modulated, subs=subs, weighted=weighted, visible=0.5)
    x, kept = drawn_with_marginals(prediction, Draws(0, count=2), keep_bytes=10**6)
    again, read = drawn_with_marginals(prediction, Draws(0, count=2), keep_bytes=0)
    assert kept.table is not None and read.table is None and torch.equal(x, again)
    rows = torch.arange(10)
    torch.testing.assert_close(kept.probs(rows), read.probs(rows), rtol=1e-5, atol=1e-6)
    weights = mixture_log_weights(prediction).exp().float()
    truth = torch.einsum("m,pms->ps", weights, prediction.log_probs(rows).exp())
    torch.testing.assert_close(kept.probs(rows), truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 10])
@pytest.mark.parametrize(("subs", "weighted"), [(False, True), (True, False)])
def test_reading_in_buffers_of_any_size(subs, weighted, rows):
    prediction = target(subs=subs, weighted=weighted, visible=0.5)
    marginals = Marginals(prediction)
    affine = Affine(
        *prediction.output_head(prediction.features, reduction=lambda h, weight, bias: (weight, bias)),
        prediction.num_states,
    )
    buffers = Buffers.empty(rows, prediction.components, prediction.num_states, prediction.features)
    every = torch.arange(10)
    found = marginals.probs(every, affine, buffers)
    torch.testing.assert_close(found, marginals.probs(every), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("readout", ["affine", "generic"])
def test_a_student_scored_against_itself(readout):
    """The target shares the student's output head, whose weights are in hand while the sums are taken."""
    made = system(Case(batch=2, positions=5, states=4, visible=0.3), torch.float64)
    made = made if readout == "affine" else opaque(made)
    own = replace(made.prediction, features=made.prediction.features.detach())
    _, marginals = drawn_with_marginals(own, Draws(0, count=2), keep_bytes=0)
    kl = statistics(made.prediction, [Query(frozenset({"kl"}), None, marginals)], chunk_bytes=1)[0].kl
    assert kl.abs().max() < 1e-9
    (gradient,) = torch.autograd.grad(kl.sum(), made.prediction.features)
    assert gradient.abs().max() < 1e-9


def test_a_certain_position_is_a_one_hot_row():
    prediction = target(visible=1.0)
    _, kept = drawn_with_marginals(prediction, Draws(0, count=2), keep_bytes=10**6)
    rows = torch.arange(10)
    assert torch.equal(kept.probs(rows).argmax(-1), prediction.x_t.flatten())
    assert torch.equal(kept.probs(rows).sum(-1), torch.ones(10))


def test_sums_against_kept_marginals_equal_those_against_the_prediction():
    made = system(Case(batch=2, positions=5, states=4, subs=True), torch.float64)
    expected = project_sums(made, frozenset({"kl"}))["kl"]
    marginals = Marginals(target_of(made.q, made.prediction.x_t), made.q.flatten(0, 1), torch.arange(10))
    found = statistics(made.prediction, [Query(frozenset({"kl"}), None, marginals)])[0].kl
    torch.testing.assert_close(found, expected)


def test_a_prediction_with_a_modulation_may_be_a_target_as_it_is():
    """Not demodulated, and with the output head of what is scored against it."""
    made = system(Case(batch=2, positions=5, states=4, modulated=True), torch.float64)
    target = replace(made.prediction, features=made.prediction.features.detach())
    kl = statistics(made.prediction, [Query(frozenset({"kl"}), None, target)], chunk_bytes=1)[0].kl
    assert kl.abs().max() < 1e-9
