"""The denoising objective, on the small masked system and the chain of pixels."""

import pytest
import torch

from di4c.contracts import Batch, Draws, Prediction
from di4c.errors import SpecError
from di4c_plugins.objectives.denoising import Denoising
from di4c_plugins.processes.uniform import Uniform
from tests.systems import tiny_teacher


def a_batch(size=6):
    draws = Draws(0, count=size)
    return Batch(draws.integers(5, 6), draws.integers(3))


def test_the_terms_add_up():
    teacher = tiny_teacher()
    both = Denoising(teacher, cross_entropy=0.3, bound=2.0)(a_batch(), Draws(1, count=6), 0)
    one = Denoising(teacher, cross_entropy=1.0)(a_batch(), Draws(1, count=6), 0)
    torch.testing.assert_close(both["loss"], 0.3 * both["cross_entropy"] + 2.0 * both["bound"])
    assert torch.equal(one["loss"], both["cross_entropy"]) and "bound" not in one


def test_cross_entropy_by_hand():
    teacher = tiny_teacher()
    teacher.process = Uniform(teacher.process.num_states, speed=3.0)
    batch, draws = a_batch(), Draws(2, count=6)
    t = 0.2 + 0.8 * draws.child("t").uniform()
    x_t = teacher.process.corrupt(batch.x_0, t, draws.child("x_t"))
    prediction = Prediction(
        teacher.backbone(x_t, t, batch.cond),
        x_t,
        teacher.backbone.readout,
        teacher.parameterisation,
        teacher.process.num_states,
    )
    want = -prediction.log_prob_of(batch.x_0)[:, 0]
    got = Denoising(teacher, cross_entropy=1.0, low=0.2)(batch, Draws(2, count=6), 0)
    torch.testing.assert_close(got["loss"], want)


def test_label_dropout():
    teacher = tiny_teacher()
    batch = a_batch()
    dropped = Denoising(teacher, cross_entropy=1.0, label_dropout=1.0)(batch, Draws(1, count=6), 0)["loss"]
    none = Denoising(teacher, cross_entropy=1.0)(Batch(batch.x_0, torch.full((6,), -1)), Draws(1, count=6), 0)["loss"]
    assert torch.equal(dropped, none)


@pytest.mark.parametrize(
    "options", [{"cross_entropy": 0.0}, {"cross_entropy": -1.0, "bound": 2.0}, {"cross_entropy": 1.0, "low": 1.0}]
)
def test_mistakes(options):
    with pytest.raises(SpecError, match="objective"):
        Denoising(tiny_teacher(), **options)
