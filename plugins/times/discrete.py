"""Discrete times from any time sampler."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Draws, TimeSampler
from di4c.errors import SpecError


@dataclass(frozen=True)
class Discrete(TimeSampler):
    """Another sampler's t moved up to ⌊t·T⌋/T + 1/T, at most 1: T = `count` times, as models of discrete time have them."""

    count: int
    time: TimeSampler

    def __post_init__(self):
        if self.count < 1:
            raise SpecError(f"count is {self.count}; at least one time is needed")

    def sample(self, draws: Draws, step: Tensor | float = 0.0) -> tuple[Tensor, tuple[float, float]]:
        t, interval = self.time.on_grid(self.count).sample(draws, step)
        return self._moved(t), self._moved_interval(interval)

    @property
    def span(self) -> tuple[float, float]:
        return self._moved_interval(self.time.span)

    @property
    def longest_step(self) -> float:
        return self.time.longest_step

    def _moved_interval(self, interval: tuple[float, float]) -> tuple[float, float]:
        low, high = self._moved(torch.tensor(interval, dtype=torch.float64)).tolist()
        return low, high

    def _moved(self, t: Tensor) -> Tensor:
        """t moved up to the next of the times: the shape of t."""
        return ((t * self.count).floor() / self.count + 1 / self.count).clamp_max(1.0)
