import pytest
import torch

from di4c.contracts import DataSource, Draws, Generation
from di4c_plugins.datasets.digits import TensorSplit


class ArraySource(DataSource):
    def __init__(self, train, test, num_states):
        self.num_positions, self.num_states = train.shape[1], num_states
        self._splits = {"train": TensorSplit(train), "test": TensorSplit(test)}

    def split(self, name):
        return self._splits[name]


@pytest.fixture
def source():
    """source(train, test, num_states) → a DataSource of these tokens."""
    return ArraySource


@pytest.fixture
def generation():
    """generation(x_0) → a Generation of which only the samples matter."""

    def make(x_0, **fields):
        empty = dict(cond=None, steps=1, sampler=None, denoiser=None, components=None, draws=Draws(0, count=len(x_0)))
        return Generation(x_0=x_0, **{**empty, **fields})

    return make


@pytest.fixture
def correlated():
    """4000 sequences of 6 positions, 5 states: a slow walk, so that neighbours depend on one another."""
    draws = Draws(7, count=4000)
    start, steps = draws.integers(5, 1), draws.integers(3, 5) - 1
    return torch.cat([start, start + steps.cumsum(1)], 1).clamp(0, 4)
