"""Clusters of data, as a start for λ: k-means of one-hots."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Draws, Split
from di4c.errors import SpecError
from di4c.ranks import on_rank_zero

EXAMPLES_A_CLUSTER = 64
EPOCHS = 10
"""Passes of k-means over its sample: a start, no result."""
LARGEST_SAMPLE = 2**25
"""Entries n·D·S of the one-hots that k-means is given, 128 MiB."""


@dataclass(frozen=True)
class Clusters:
    """K centres [D, S, K] float32: the mean one-hots of their members. offset [K]: their squared norms."""

    centres: Tensor
    offset: Tensor

    @classmethod
    def of(cls, split: Split, number: int, num_states: int, draws: Draws) -> "Clusters":
        """The clusters of a sample of the data, found by rank 0. They depend on the key of `draws` alone. Collective.

        SpecError where the one-hots of enough examples are too large.
        """
        centres = on_rank_zero(lambda: _centres(split, number, num_states, draws)).to(draws.device)  # [K, D, S]
        return cls(centres.permute(1, 2, 0).contiguous(), centres.square().sum((1, 2)))

    def nearest(self, x: Tensor) -> Tensor:
        """The cluster whose centre is nearest to the one-hots of x [B, D]: [B] int64."""
        inner = torch.zeros(len(x), len(self.offset), device=x.device)
        for centre, token in zip(self.centres, x.T, strict=True):
            inner += centre[token]
        return (self.offset - 2 * inner).argmin(-1)


def _centres(split: Split, number: int, num_states: int, draws: Draws) -> Tensor:
    """[K, D, S] float32."""
    from sklearn.cluster import MiniBatchKMeans

    positions = split.batch(torch.zeros(1, dtype=torch.int64)).x_0.shape[1]
    most = LARGEST_SAMPLE // (positions * num_states)
    count = min(len(split), EXAMPLES_A_CLUSTER * number, most)
    if count < number:
        raise SpecError(
            f"objective.full_noise.clustered: {number} clusters need as many examples; there are {len(split)}, and the one-hots of "
            f"{most} are as many as k-means is given; leave it out"
        )
    whole = Draws(draws.seed, path=draws.path).child("clusters")
    x = split.batch(whole.permutation(len(split))[0, :count]).x_0
    one_hots = torch.nn.functional.one_hot(x, num_states).flatten(1).float().numpy()
    seed = int(whole.child("k-means").scalar() * 2**31)
    found = MiniBatchKMeans(number, batch_size=2048, n_init=1, max_iter=EPOCHS, random_state=seed).fit(one_hots)
    return torch.from_numpy(found.cluster_centers_).float().unflatten(1, (positions, num_states))
