"""The λ sampler: the prior of λ, and how an example's draws depend on one another."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from di4c.contracts.proposal import Proposal
from di4c.draws import Draws, placed


class LambdaSampler(ABC):
    """Draws λ; `dim` is L, `num_atoms` the size K of a finite prior (None if it is infinite).

    With components = K a finite prior is enumerated: `sample` returns every atom once, `log_weights` their probabilities,
    and averages over λ are exact. `independent` says whether the draws of an example are otherwise independent of one another:
    some loss estimators are right for such a sampler only, and take none that leaves it at False.
    `proposal_width`: how many numbers parametrise `proposal`, the family of q(λ | x, x_t) that goes with the prior; None: it has none.
    """

    dim: int
    num_atoms: int | None = None
    independent: bool = False
    proposal_width: int | None = None

    @abstractmethod
    def sample(self, components: int, draws: Draws) -> Tensor:
        """M draws an example, each from the prior of λ (they may depend on one another): [B, M, L] float32."""

    def log_weights(self, components: int) -> Tensor:
        """log w_m of the components that `sample` returns, Σ w = 1: [M] float64; −log M unless the prior is enumerated."""
        return torch.full((components,), -math.log(components), dtype=torch.float64)

    def weighted(self, components: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """What `sample` and `log_weights` give, on the draws' device."""
        return placed(self.sample(components, draws), draws.device), placed(self.log_weights(components), draws.device)

    @abstractmethod
    def discretised(self, atoms: int, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """K equal-weight atoms that stand for the prior: quantile midpoints (Sobol points for L > 1), shifted at random.

        Without draws they are not shifted. Returns (atoms [K, L] float32, weights [K] float32 summing to 1). K = 1 makes the
        student a product model.
        """

    def proposal(self, parameters: Tensor) -> Proposal:
        """q of parameters [B, J, proposal_width], as a `Posterior` puts them out; of zeros it is the prior."""
        raise NotImplementedError(f"{type(self).__name__} has no family of posteriors")

    def start_proposal(self, layer: nn.Linear, *, spread: float, noise: float) -> None:
        """Initialises the layer that puts the parameters out, its inputs of unit variance: how far apart q of different examples are,
        in standard deviations of the prior, and how wide each is. spread → 0 and noise 1: the prior."""
        raise NotImplementedError(f"{type(self).__name__} has no family of posteriors")
