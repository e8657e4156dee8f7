"""A mixture student as a product model: its marginals, averaged over λ."""

import torch
from torch import Tensor, nn

from di4c.contracts import Parameterisation, Prediction, StudentHead


def midpoint_average(
    backbone: nn.Module, head: StudentHead, parameterisation: Parameterisation, num_states: int, atoms: int,
    x_t: Tensor, t: Tensor, cond: Tensor | None,
) -> Prediction:
    """∏_d (1/K) Σ_k p^{θ,d}(x_0^d | x_t; λ_k) with λ_k = (k − ½)/K, K = atoms, as one component.

    Quantile midpoints of U[0, 1] (a one-dimensional λ), so nothing is drawn.
    """
    midpoints = (torch.arange(atoms, dtype=torch.float32, device=x_t.device) + 0.5) / atoms
    context = head.context(midpoints.expand(len(x_t), -1).unsqueeze(-1))
    features = backbone(x_t, t, cond, context)
    return Prediction(features, x_t, backbone.readout, parameterisation, num_states, components=atoms).average()
