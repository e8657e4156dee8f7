"""The exponential moving average of the model's weights, each rank averaging the float32 part that it holds."""

import torch
from torch import Tensor

from di4c.engine.shards import Shards


class MovingAverage:
    """v ← β_k v + (1 − β_k) θ after update k = 1, 2, …, in float32, laid out like the masters of `shards`.

    Of what is trained beside the model there is no average: its tensors are empty. β_k = min(decay, (1 + k)/(10 + k)), so that a short run is not held at its start. Elementwise, hence the same
    whether weights are whole or sharded; equal to the average of the gathered weights.
    """

    def __init__(self, shards: Shards, decay: float):
        self.shards, self.decay = shards, decay
        beside = shards.tensors_beside
        self.names = [name for name in shards.names if shards.slots[name].tensor not in beside]
        self._averaged = [i not in beside for i in range(len(shards.masters()))]
        self.tensors = [
            m.detach().float().clone() if averaged else m.new_empty(0)
            for m, averaged in zip(shards.masters(), self._averaged, strict=True)
        ]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Takes in the weights after update number `updates`."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        averages, masters = self._of_the_model(self.tensors), self._of_the_model(self.shards.masters())
        if all(m.dtype == torch.float32 for m in masters):
            torch._foreach_lerp_(averages, masters, 1 - decay)
            return
        for average, master in zip(averages, masters, strict=True):
            average.lerp_(master.float(), 1 - decay)

    def _of_the_model(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.detach() for t, averaged in zip(tensors, self._averaged, strict=True) if averaged]
