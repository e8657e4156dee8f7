"""The network of an amortised posterior of λ."""

from abc import abstractmethod

from torch import Tensor, nn


class Posterior(nn.Module):
    """x, x_t → the parameters of q(λ | x, x_t). Trained with the student, of no use after training, and not exported.

    Constructed, by keyword, with what it asks for of `latent` (whose `proposal_width` is P), `process`, `teacher`, `num_positions`
    and `num_classes`. Its last layer starts as the λ sampler says (`start_proposal`). Its parameters live in submodules that are
    called, or in itself, as for a Backbone.
    """

    @abstractmethod
    def forward(self, x: Tensor, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Parameters [B, J, P] for J samples x [B, J, D] of an example x_t [B, D] at t [B], cond [B] or None.

        A sample's parameters depend on neither the other samples nor the other examples.
        """
