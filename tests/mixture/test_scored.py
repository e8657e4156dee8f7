"""Log-probabilities of tokens by the row functions, and the teacher's loss that uses them."""

from dataclasses import fields
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings

from di4c.contracts import Batch, Draws, Prediction, TimeSampler
from di4c.losses.pretraining import NELBO
from di4c.mixture.scored import ScoredByRows
from tests.mixture.mixture_cases import Case, cases, opaque, system
from tests.systems import tiny_teacher


def scored(prediction: Prediction) -> ScoredByRows:
    return ScoredByRows(**{field.name: getattr(prediction, field.name) for field in fields(prediction)})


def values_and_gradients(made: SimpleNamespace, prediction: Prediction, where=None) -> list[torch.Tensor]:
    value = prediction.log_prob_of(made.x[:, 0], where, made.case.chunk_bytes)
    factors = torch.rand(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
    found = torch.autograd.grad((value * factors).sum(), made.parameters, allow_unused=True)
    pairs = zip(made.parameters, found, strict=True)
    return [value, *(torch.zeros_like(parameter) if g is None else g for parameter, g in pairs)]


@given(cases)
@settings(max_examples=40, deadline=None)
def test_they_are_those_of_a_log_softmax_with_the_same_gradients(case):
    made = system(case, torch.float64)
    for where in (
        None,
        torch.rand(made.prediction.x_t.shape, generator=torch.Generator().manual_seed(case.seed)) < 0.5,
    ):
        found, want = (values_and_gradients(made, p, where) for p in (scored(made.prediction), made.prediction))
        for a, b in zip(found, want, strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_narrow_weights_are_summed_in_float32(dtype, tolerance):
    """Against the same numbers in float64."""
    case = Case(batch=3, components=1, positions=8, states=90, width=16, visible=0.2, chunk_bytes=2000)
    narrow, exact = system(case, dtype), system(case, torch.float64)
    for mine, its in zip(narrow.parameters, exact.parameters, strict=True):
        its.data = mine.data.double()
    found, want = values_and_gradients(narrow, scored(narrow.prediction)), values_and_gradients(exact, exact.prediction)
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0].double(), want[0], rtol=1e-5, atol=1e-5)
    assert all((a.double() - b).norm() <= tolerance * b.norm() for a, b in zip(found[1:], want[1:], strict=True))


def test_any_other_output_head_goes_the_way_of_every_prediction():
    made = opaque(system(Case(), torch.float64))
    found, want = (values_and_gradients(made, p) for p in (scored(made.prediction), made.prediction))
    assert all(map(torch.equal, found, want))


def test_a_teachers_loss_never_makes_a_log_softmax():
    """Its output head is affine: all rows of a step are one call of it, also without the mask and where no gradient is wanted."""
    teacher = tiny_teacher()
    time = mock.Mock(TimeSampler, sample=lambda draws: (torch.full((2,), 0.5), None))
    objective = NELBO(teacher, time=time)
    batch = Batch(torch.zeros(2, teacher.num_positions, dtype=torch.int64))
    with mock.patch.object(Prediction, "log_probs_from", side_effect=AssertionError):
        loss = objective(batch, Draws(0, count=2), 0)["loss"]
        loss.mean().backward()
        with torch.no_grad():
            again = objective(batch, Draws(0, count=2), 0)["loss"]
    torch.testing.assert_close(again, loss.detach(), rtol=0, atol=0)
    assert all(p.grad is not None for p in objective.model.readout.parameters())


def test_without_a_state_it_stays_what_it_is():
    made = system(Case(subs=False), torch.float64)
    made.x.clamp_(max=1)
    without = scored(made.prediction).without(2)
    assert isinstance(without, ScoredByRows)
    found, want = (values_and_gradients(made, p) for p in (without, made.prediction.without(2)))
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
