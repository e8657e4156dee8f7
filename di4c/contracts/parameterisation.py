"""How a network's output becomes log p(x_0 | x_t)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from di4c.kernels.rows import LOG_ZERO


class Parameterisation(ABC):
    """A map from logits to log-probabilities of the clean state, and the positions where it is not constant.

    excluded: the states of probability zero, if at every active position the log-probs are the log-softmax of the logits
    after LOG_ZERO is added to those states; None if they are anything else. It lets the losses use gradients written by hand.
    """

    excluded: tuple[int, ...] | None = None

    @abstractmethod
    def log_probs(self, logits: Tensor, x_t: Tensor) -> Tensor:
        """log p(x_0^d | x_t; λ_m), normalised over states: [P, M, S], from logits [P, M, S] and visible tokens x_t [P]."""

    @abstractmethod
    def active(self, x_t: Tensor) -> Tensor:
        """The positions whose log-probabilities depend on the network: bool [B, D], from x_t [B, D]."""


class WithoutState(Parameterisation):
    """Another parameterisation's law of x_0 given that it is not one state: p(v)/(1 − p(state)) for v ≠ state."""

    def __init__(self, inner: Parameterisation, state: int):
        self.inner, self.state = inner, state
        self.excluded = None if inner.excluded is None else (*inner.excluded, state)

    def log_probs(self, logits: Tensor, x_t: Tensor) -> Tensor:
        log_p = self.inner.log_probs(logits, x_t)
        index = torch.tensor([self.state], device=log_p.device)
        # Twice as far down as the other impossible states, so that it does not come out where all but it are impossible.
        return log_p.index_fill(-1, index, 2 * LOG_ZERO).log_softmax(-1)

    def active(self, x_t: Tensor) -> Tensor:
        return self.inner.active(x_t)


class Raw(Parameterisation):
    """log-softmax over all states; every position counts, the visible ones too (MaskGIT's convention)."""

    excluded = ()

    def log_probs(self, logits: Tensor, x_t: Tensor) -> Tensor:
        return logits.log_softmax(-1)

    def active(self, x_t: Tensor) -> Tensor:
        return torch.ones_like(x_t, dtype=torch.bool)
