"""Clusters of data, as a start for λ: a mixture of products fitted by EM, without a network.

    log p(x) = log Σ_k w_k ∏_d θ_k^d(x^d),   w of λ's prior

EM ends in a local optimum of a sample: what it binds tells what K atoms can bind at least.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Draws, Split, placed
from di4c.errors import SpecError
from di4c.ranks import on_rank_zero

EXAMPLES_A_CLUSTER = 512
SMALLEST_SAMPLE = 2**15
ITERATIONS = 20
"""Of EM over its sample: a start, no result."""
LARGEST_SAMPLE = 2**31
"""Numbers n·D·K that an iteration looks up."""
PRIOR_EXAMPLES = 4.0
"""Examples of the whole sample's marginals that every cluster is given beside its own."""


@dataclass(frozen=True)
class Clusters:
    """log θ [D, S, K] and log w [K], float32."""

    log_theta: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, split: Split, log_weights: Tensor, num_states: int, draws: Draws) -> "Clusters":
        """The clusters of a sample of the data, found by rank 0 on its device. They depend on the key of `draws` alone. Collective.

        SpecError where there are fewer examples than clusters.
        """
        log_weights = placed(log_weights.float().cpu(), draws.device)

        def fitted() -> Tensor:
            return _fitted(placed(_sample(split, len(log_weights), draws), draws.device), log_weights, num_states).cpu()

        return cls(placed(on_rank_zero(fitted), draws.device), log_weights)

    def log_joint(self, x: Tensor) -> Tensor:
        """log w_k + Σ_d log θ_k^d(x^d): x [B, D] → [B, K]."""
        scores = self.log_weights.expand(len(x), -1).clone()
        for log_theta, token in zip(self.log_theta, x.T, strict=True):
            scores += log_theta[token]
        return scores

    def of_examples(self, x: Tensor) -> Tensor:
        """How far each cluster explains each example, p(k given x): x [B, D] → [B, K], rows that sum to 1."""
        return self.log_joint(x).softmax(-1)


def _sample(split: Split, number: int, draws: Draws) -> Tensor:
    """Examples in an order drawn: [n, D] int64."""
    positions = split.batch(torch.zeros(1, dtype=torch.int64)).x_0.shape[1]
    wanted = max(EXAMPLES_A_CLUSTER * number, SMALLEST_SAMPLE)
    count = min(len(split), wanted, LARGEST_SAMPLE // (positions * number))
    if count < number:
        raise SpecError(
            f"objective.full_noise.clustered: {number} clusters need as many examples; there are {len(split)}, of which "
            f"{count} are clustered; leave it out"
        )
    order = Draws(draws.seed, path=draws.path).child("clusters").permutation(len(split))
    return split.batch(order[0, :count]).x_0


def _fitted(x: Tensor, log_weights: Tensor, num_states: int) -> Tensor:
    """log θ [D, S, K] after EM from K of the examples, each blurred by the marginals."""
    count, number = len(x), len(log_weights)
    marginals = _counts(x, log_weights.new_ones(count, 1), num_states) / count  # [D, S, 1]
    theta = 0.3 * _counts(x[:number], torch.eye(number, device=x.device), num_states) + 0.7 * marginals
    for _ in range(ITERATIONS):
        clusters = Clusters(theta.clamp_min(1e-9).log(), log_weights)
        counts, sizes = torch.zeros_like(theta), log_weights.new_zeros(number)
        for some in x.split(4096):
            explained = clusters.of_examples(some)
            counts += _counts(some, explained, num_states)
            sizes += explained.sum(0)
        theta = (counts + PRIOR_EXAMPLES * marginals) / (sizes + PRIOR_EXAMPLES)
    return theta.clamp_min(1e-9).log()


def _counts(x: Tensor, weights: Tensor, num_states: int) -> Tensor:
    """Σ_n weights_nk [x_n^d = s]: x [n, D], weights [n, K] → [D, S, K]."""
    counts = weights.new_zeros(x.shape[1], num_states, weights.shape[1])
    states = torch.arange(num_states, device=x.device)[:, None]
    for found, token in zip(counts, x.T, strict=True):
        if x.is_cuda:  # where `index_add_` is atomic
            torch.mm((token == states).to(weights), weights, out=found)
        else:
            found.index_add_(0, token, weights)
    return counts
