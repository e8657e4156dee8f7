"""λ after the network, and the positions it may see."""

from types import SimpleNamespace

import pytest
import torch

from di4c.errors import SpecError
from di4c.mixture.student import MixtureStudent
from di4c.mixture.sums import Query, statistics
from di4c_plugins.heads.readout import Readout
from tests.systems import tiny_teacher

TEACHER = tiny_teacher()
ALL_MASKED = torch.full((2, TEACHER.num_positions), TEACHER.process.mask_index)


def prediction(position_scale: float):
    """Four components of a student whose backbone gives every position the same features."""
    torch.manual_seed(0)
    backbone = TEACHER.student_backbone()
    backbone.forward = lambda x_t, *rest: torch.ones(*x_t.shape, backbone.width)
    head = Readout(4, backbone, TEACHER.num_positions, rank=8, position_scale=position_scale)
    student = MixtureStudent(
        backbone, head, parameterisation=TEACHER.parameterisation, num_states=TEACHER.process.num_states
    )
    return student.predict(ALL_MASKED, torch.ones(2), None, torch.eye(4).expand(2, -1, -1))


def test_components_differ_between_positions_whose_features_do_not():
    """Not only by a factor per component: the difference of two components changes with the position."""
    rows = torch.arange(ALL_MASKED.numel())
    difference = {}
    for scale in (0.0, 1.0):
        log_p = prediction(scale).log_probs(rows).unflatten(0, ALL_MASKED.shape)
        difference[scale] = (log_p[:, :, 0] - log_p[:, :, 1]).std(dim=1).max()
    assert difference[0.0] < 1e-5 and difference[1.0] > 0.05


def test_the_loss_and_dense_log_probs_see_the_same_positions():
    made = prediction(1.0)
    x = torch.arange(TEACHER.num_positions).remainder(TEACHER.process.mask_index).expand(2, -1)
    joint = statistics(made, [Query(frozenset({"joint"}), x[:, None])])[0].joint[:, 0]
    torch.testing.assert_close(joint, made.log_prob_of(x).double(), rtol=1e-5, atol=1e-5)


def test_positions_need_their_number():
    with pytest.raises(SpecError, match="position_scale"):
        Readout(4, SimpleNamespace(width=8), rank=8, position_scale=1.0)
