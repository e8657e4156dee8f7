"""Gradients under repeated draws."""

import pytest
import torch

from di4c.evaluation.repeated import gradients, standard_deviation


def test_gradients_of_repeated_draws():
    weight, unused = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    losses, found = gradients(lambda k: (weight * torch.tensor([k, 2.0 * k])).sum(), [weight, unused], 3)
    assert losses.tolist() == [0.0, 5.0, 10.0]
    assert found.tolist() == [[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [2.0, 4.0, 0.0]]
    assert standard_deviation(found) == pytest.approx(5**0.5)
