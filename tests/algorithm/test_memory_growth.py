"""What M and D cost in memory: the features and their gradients, not the logits. Bytes are counted, at a small size."""

import pytest
import torch
from torch import Tensor

from di4c.algorithm.mixture import Query, statistics
from di4c.contracts import AffineReadout, Prediction, Raw
from di4c.planning.live import LiveBytes

STATES, WIDTH, CHUNK = 1000, 64, 2**20


def peak_bytes(components: int, positions: int) -> int:
    """Of the loss's sums and their gradients, above features, weights and target."""
    torch.manual_seed(0)
    features = torch.randn(components, positions, WIDTH, requires_grad=True)
    readout, x_t = AffineReadout(WIDTH, STATES), torch.zeros(1, positions, dtype=torch.int64)
    student = Prediction(features, x_t, readout, Raw(), STATES, components)
    teacher = Prediction(torch.randn(1, positions, WIDTH), x_t, readout, Raw(), STATES)
    samples: Tensor = torch.randint(STATES, (1, 2, positions))
    with LiveBytes(readout) as live:
        found = statistics(student, [Query(frozenset({"joint", "marginal", "kl"}), samples, teacher)], chunk_bytes=CHUNK)[0]
        (found.kl - found.joint.logsumexp(-1).mean() + found.marginal.mean()).sum().backward()
    assert features.grad is not None
    return live.peak


@pytest.mark.parametrize("more", [{"components": 16, "positions": 64}, {"components": 8, "positions": 128}])
def test_doubling_costs_no_more_than_features_and_gradients(more):
    base = {"components": 8, "positions": 64}
    both = 2 * 4 * base["components"] * base["positions"] * WIDTH  # as many features are added as there were, and their gradients
    assert peak_bytes(**more) - peak_bytes(**base) <= 1.1 * both


def test_the_logits_do_not_exist_at_once():
    components, positions = 16, 256
    assert peak_bytes(components, positions) < 0.5 * 4 * components * positions * STATES
