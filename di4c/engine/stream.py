"""The order of the examples: one global stream, the same for any number of ranks, micro-batches and resumptions."""

import threading

import torch
from torch import Tensor

from di4c.contracts.dataset import Batch, Split
from di4c.draws import Draws, placed


class ExampleStream:
    """Index i of the stream is example perm_e(i mod n) of epoch e = ⌊i/n⌋, perm_e keyed by (seed, e).

    Step k of global batch size G uses the indices kG … kG + G − 1. Threads may share a stream: it calls the split from one at a time.
    """

    def __init__(self, split: Split, seed: int, *, batch_size: int):
        self.split, self.seed, self.batch_size = split, seed, batch_size
        self._permutations: dict[int, Tensor] = {}
        self._reading = threading.RLock()

    def batch(self, step: int, start: int, stop: int, device: torch.device | str = "cpu") -> tuple[Batch, Draws]:
        """The examples start … stop − 1 of step `step`, and the draws for their losses. On CUDA, copies from pinned memory."""
        first = step * self.batch_size + start
        draws = Draws(self.seed, first=first, count=stop - start, path=("train", step), device=device)
        augment = Draws(self.seed, first=first, count=stop - start, path=("augment", step))
        with self._reading:
            batch = self.split.batch(self.indices(first, first + stop - start), augment)
        return Batch(placed(batch.x_0, device), None if batch.cond is None else placed(batch.cond, device)), draws

    def indices(self, first: int, stop: int) -> Tensor:
        """The data set's indices of the stream's indices first … stop − 1: [stop − first] int64."""
        size = len(self.split)
        position = torch.arange(first, stop)
        epochs = position // size
        wanted = epochs.unique().tolist()
        with self._reading:
            self._permutations = {e: self._permutation(e) for e in wanted}
            parts = [self._permutations[e][position[epochs == e] % size] for e in wanted]
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch in self._permutations:
            return self._permutations[epoch]
        return Draws(self.seed, path=("order", epoch)).permutation(len(self.split))[0]
