"""The λ network that the heads share: λ → code, started so that components differ."""

import math

import torch
from torch import Tensor, nn


class LatentCode(nn.Module):
    """λ [B, M, L] → code [B, M, width] float32: features of λ, then a two-layer network.

    A λ of one dimension is embedded by sinusoids ([sin, cos] of λ at frequencies 2π·1, …, 2π·8), others enter as they are. The
    network is He-initialised with zero biases and its code is normalised, so that codes of different λ differ at the start:
    near-identical components are a saddle point of the mixture loss.
    """

    def __init__(self, latent_dim: int, width: int, *, harmonics: int = 8):
        super().__init__()
        self.harmonics = harmonics if latent_dim == 1 else 0
        features = 2 * harmonics if self.harmonics else latent_dim
        self.net = nn.Sequential(
            nn.Linear(features, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width, elementwise_affine=False),
        )
        for layer in (self.net[0], self.net[2]):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, lam: Tensor) -> Tensor:
        return self.net(self._features(lam.float()).to(self.net[0].weight))

    def _features(self, lam: Tensor) -> Tensor:
        if not self.harmonics:
            return lam
        angles = 2 * math.pi * lam * torch.arange(1, self.harmonics + 1, device=lam.device)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def symmetry_breaking(layer: nn.Linear, scale: float) -> nn.Linear:
    """The layer with weights of standard deviation scale/√fan-in and no bias: an output projection that is not zero."""
    nn.init.normal_(layer.weight, std=scale / math.sqrt(layer.in_features))
    nn.init.zeros_(layer.bias)
    return layer
