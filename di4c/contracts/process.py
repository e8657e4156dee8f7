"""The forward (noising) process q and what follows from it: posteriors and the diffusion bound."""

from abc import ABC, abstractmethod

from torch import Tensor

from di4c.contracts.prediction import Prediction
from di4c.draws import Draws


class ForwardProcess(ABC):
    """q(x_t | x_0) = ∏_d q(x_t^d | x_0^d) on S states.

    `num_states` is S, the mask included where there is one. `mask_index` is that state, or None: any of the S, and the data
    hold none of it. Where there is one, `posterior` leaves every other state as it is, so that a prompt's tokens, put into x_1,
    stay through any sampler's steps; and what it reveals is never the mask, whatever probability a network gives that state
    (`prediction.without(mask_index)`), so that s = 0 leaves none.

    Constructed with `data_states`, the number of the data's states, by keyword if it asks for it.
    """

    num_states: int
    mask_index: int | None = None

    @abstractmethod
    def prior(self, num_positions: int, draws: Draws) -> Tensor:
        """x_1 ~ q_1: [B, D] int64."""

    @abstractmethod
    def corrupt(self, x_0: Tensor, t: Tensor, draws: Draws) -> Tensor:
        """x_t ~ q(x_t | x_0): [B, D] int64, from x_0 [B, D] and t [B]; t = 0 gives x_0."""

    @abstractmethod
    def posterior(self, x_t: Tensor, prediction: Prediction, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        """x_s ~ ∏_d Σ_{x_0^d} q(x_s^d | x_t^d, x_0^d) p(x_0^d | x_t), a one-component prediction: [B, D] int64.

        s = 0 draws x_0 itself; the draw is exact (float64 inversion), never float32 Gumbel noise.
        """

    @abstractmethod
    def posterior_log_prob(self, x_s: Tensor, x_t: Tensor, prediction: Prediction, t: Tensor, s: Tensor) -> Tensor:
        """Σ_d log p^d(x_s^d | x_t; λ_m), the log-probability of x_s under each component's step: [B, M], nats."""

    def nelbo(self, x_0: Tensor, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        """One-sample continuous-time bound on −log p(x_0), for t ~ U[0, 1], x_t ~ q(·|x_0): [B], nats."""
        raise NotImplementedError(f"{type(self).__name__} has no training bound; pretrain with a process that has one")
