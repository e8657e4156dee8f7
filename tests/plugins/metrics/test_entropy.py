import math

import pytest
import torch

from di4c.contracts import Draws
from di4c_plugins.metrics.entropy import Entropy, position_entropy


def test_entropy_of_known_frequencies():
    x = torch.tensor([[0, 1], [1, 1], [2, 1], [3, 1]])
    assert position_entropy(x, 4) == pytest.approx(math.log(4) / 2)


def test_collapse_is_seen(source, generation, correlated):
    metric = Entropy(data=source(correlated, correlated, 5))
    collapsed = metric(generation(correlated[:1].expand(100, -1)))
    assert collapsed == {"position_entropy_nats": 0.0, "unique_fraction": 0.01}


def test_the_reference_is_the_datas_own_diversity(source, generation, correlated):
    metric = Entropy(data=source(correlated, correlated[:10], 5))
    assert metric.reference_values(4000, Draws(0)) == metric(generation(correlated))
