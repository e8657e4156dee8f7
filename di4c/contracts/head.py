"""How λ enters a student."""

from abc import abstractmethod

from torch import Tensor, nn

from di4c.contracts.backbone import Context


class StudentHead(nn.Module):
    """λ → Context. Constructed, by keyword, with what it asks for of `latent_dim` (L), `backbone` (its `width`, `depth`,
    `embedding_width`) and `num_positions` (D).

    `needs` names the Context fields the backbone must accept. λ and its embedding stay float32. Near-identical components
    are a saddle point of the mixture loss: a head starts with components that differ (non-zero output projection).
    Parameters live in submodules that are called, as for a Backbone.
    """

    needs: frozenset = frozenset()

    @abstractmethod
    def context(self, lam: Tensor) -> Context:
        """The context of λ [B, M, L] float32."""
