"""The exponential moving average of the weights, each rank averaging the float32 part that it holds."""

import torch

from di4c.engine.shards import Shards


class MovingAverage:
    """v ← β_k v + (1 − β_k) θ after update k = 1, 2, …, in float32, laid out like the masters of `shards`.

    β_k = min(decay, (1 + k)/(10 + k)), so that a short run is not held at its start. Elementwise, hence the same
    whether weights are whole or sharded; equal to the average of the gathered weights.
    """

    def __init__(self, shards: Shards, decay: float):
        self.shards, self.decay = shards, decay
        self.tensors = [m.detach().float().clone() for m in shards.masters()]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Takes in the weights after update number `updates`."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        masters = [m.detach() for m in self.shards.masters()]
        if all(m.dtype == torch.float32 for m in masters):
            torch._foreach_lerp_(self.tensors, masters, 1 - decay)
            return
        for average, master in zip(self.tensors, masters, strict=True):
            average.lerp_(master.float(), 1 - decay)
