"""A law q(λ | x, x_t) from which λ is proposed where the prior would seldom hit what explains x."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from di4c.draws import Draws


@dataclass(frozen=True)
class Proposed:
    """M draws of λ for J samples an example.

    lam: [B, J, M, L] float32. log_ratio: [B, J, M], log p(λ) − log q(λ). log_q: [B, J, M], where λ is no differentiable function
    of q's parameters and their gradient takes a score function; None: it is one, and the gradient flows through λ.
    """

    lam: Tensor
    log_ratio: Tensor
    log_q: Tensor | None = None


class Proposal(ABC):
    """q(λ | x_j, x_t) for J samples an example, made by `LambdaSampler.proposal` of what a `Posterior` says.

    reparameterised: whether λ is a differentiable function of the parameters; where not, `draw` gives log_q and takes M ≥ 2.
    """

    reparameterised: ClassVar[bool] = True

    @abstractmethod
    def draw(self, components: int, draws: Draws) -> Proposed:
        """M draws of each. Those of sample j do not depend on how many samples there are."""

    @abstractmethod
    def divergence(self) -> Tensor:
        """KL( q ‖ p ) of every dimension or factor of λ, which are independent under both: [B, J, F] nats."""
