"""Evaluation mode for a while."""

import pytest
from torch import nn

from di4c.contracts import evaluating


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


@pytest.mark.parametrize("held", [[], [0], [1, 2], [0, 1, 2]])
def test_every_part_is_evaluated_and_then_in_its_own_mode_again(held):
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)), nn.Dropout())
    for number in held:
        module[number].eval()
    before = modes(module)
    with evaluating(module):
        assert not any(modes(module))
        with evaluating(module[1]):
            pass
        assert not any(modes(module))
    assert modes(module) == before


def test_an_error_leaves_no_part_in_evaluation_mode():
    module = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="within"), evaluating(module):
        raise ValueError("within")
    assert all(modes(module))
