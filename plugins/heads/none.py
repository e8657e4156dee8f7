"""A student without λ."""

from torch import Tensor

from di4c.contracts import Backbone, Context, StudentHead


class NoHead(StudentHead):
    """λ is not used: a product model, as SDTT's students are; for `latent: {name: categorical, atoms: 1}`."""

    def __init__(self, latent_dim: int, backbone: Backbone):
        super().__init__()

    def context(self, lam: Tensor) -> Context:
        return Context(components=lam.shape[1])
