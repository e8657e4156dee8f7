"""What is told of a placement that cannot be, and what becomes of tied weights; whole runs are in tests/scale."""

import pytest
import torch
from torch import nn

from di4c.engine.placement import _untie, place
from di4c.errors import SpecError
from tests.systems import tiny_teacher

CPU = torch.device("cpu")


def test_a_teacher_without_weights_of_its_own_lies_where_its_student_does():
    teacher = tiny_teacher()
    teacher.backbone = nn.Identity()
    with pytest.raises(SpecError, match="no weights beside its student's.*offload_param"):
        place(teacher, "sharded", CPU, {})
    place(teacher, "replicated", CPU, {})


def test_a_readout_gets_copies_of_the_weights_it_shares_with_the_network():
    network, readout = nn.Embedding(5, 3), nn.Linear(3, 5)
    readout.weight, bias = network.weight, readout.bias
    _untie(readout, network)
    assert readout.weight is not network.weight and torch.equal(readout.weight, network.weight)
    assert readout.bias is bias and not readout.weight.requires_grad
