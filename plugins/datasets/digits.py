"""scikit-learn's handwritten digits as sequences of grey levels: real data that need no download."""

import hashlib
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from di4c.contracts import Batch, DataSource, Draws, Split
from di4c.errors import DataError
from di4c_plugins.datasets.decoders import Levels

HELD_OUT = 600


class TensorSplit(Split):
    """A split that lies in memory: tokens [n, D] int64 and labels [n] int64 or None; nothing is augmented."""

    def __init__(self, x_0: Tensor, cond: Tensor | None = None):
        self.x_0 = x_0
        self.cond = cond

    def __len__(self) -> int:
        return len(self.x_0)

    def batch(self, indices: Tensor, draws: Draws | None = None) -> Batch:
        indices = indices.cpu()
        return Batch(self.x_0[indices], None if self.cond is None else self.cond[indices])

    def labels(self) -> Tensor | None:
        return self.cond


class Digits(DataSource):
    """1797 handwritten digits, 8 × 8 pixels in raster order (D = 64), 17 grey levels 0, …, 16, ten classes.

    The held-out split has 600 images and the training split the other 1197. The split is stratified: each class gives
    its share of the 600, largest remainders first, chosen by a permutation seeded by `split_seed`.
    `conditional: false` hides the labels.
    """

    num_positions = 64
    num_states = 17
    side = 8
    shape = (1, 8, 8)
    label_names = [str(digit) for digit in range(10)]

    def __init__(self, *, conditional: bool = True, split_seed: int = 0):
        self.num_classes = 10 if conditional else None
        self.split_seed = split_seed

    def split(self, name: str) -> Split:
        if name not in self._splits:
            raise DataError(f"digits has no split {name!r}; its splits are 'train' and 'test'")
        return self._splits[name]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in ("train", "test"):
            digest.update(self._splits[name].x_0.numpy().astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def decoder(self) -> Levels:
        """Dark ink on white tiles."""
        return Levels((1, self.side, self.side), self.num_states, ink=True, scale=5)

    @cached_property
    def _splits(self) -> dict[str, TensorSplit]:
        from sklearn.datasets import load_digits

        data = load_digits()
        held_out = stratified(data.target, HELD_OUT, self.split_seed)
        return {"train": self._subset(data, ~held_out), "test": self._subset(data, held_out)}

    def _subset(self, data, chosen: np.ndarray) -> TensorSplit:
        x_0 = torch.from_numpy(data.data[chosen].astype(np.int64))
        return TensorSplit(x_0, torch.from_numpy(data.target[chosen].astype(np.int64)) if self.num_classes else None)


def stratified(labels: np.ndarray, num: int, seed: int) -> np.ndarray:
    """A mask of `num` examples with the classes' proportions: bool [n]; largest remainders make up the rounding."""
    classes, counts = np.unique(labels, return_counts=True)
    share = counts * num / len(labels)
    quota = np.floor(share).astype(int)
    quota[np.argsort(quota - share, kind="stable")[: num - quota.sum()]] += 1
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(labels))
    mask = np.zeros(len(labels), dtype=bool)
    for label, wanted in zip(classes, quota, strict=True):
        mask[order[labels[order] == label][:wanted]] = True
    return mask
