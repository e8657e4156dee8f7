"""The blocks of tauLDR's U-Net (DDPM++'s, Song et al. 2021), with the parameter names of the public checkpoints."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from di4c.errors import SpecError


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation in min(channels/4, 32) groups. SpecError if the channels do not divide."""
    groups = min(channels // 4, 32)
    if groups < 1 or channels % groups:
        raise SpecError(
            f"backbone tauldr-unet: {channels} channels do not form {groups} groups; "
            "use multiples of 4 (above 128: of 32)"
        )
    return nn.GroupNorm(groups, channels, eps=1e-6)


class PointwiseLinear(nn.Module):
    """A linear map of the channels at every pixel; W is [in, out]."""

    def __init__(self, in_channels: int, out_channels: int, *, scale: float = 0.1):
        super().__init__()
        bound = math.sqrt(6 * scale / (in_channels + out_channels))
        self.W = nn.Parameter(torch.empty(in_channels, out_channels).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.zeros(out_channels))

    def forward(self, h: Tensor) -> Tensor:
        return rearrange(rearrange(h, "b c h w -> b h w c") @ self.W + self.b, "b h w c -> b c h w")


class SelfAttention(nn.Module):
    """Single-head attention over pixels, added to its input; the sum is divided by √2 if `rescale`.

    Written out, in the published order of operations: the output head multiplies rounding errors by up to exp(2 −
    log-scale), and a fused kernel's rounding would move probabilities by 3e-5.
    """

    def __init__(self, channels: int, *, rescale: bool):
        super().__init__()
        self.rescale = rescale
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0 = PointwiseLinear(channels, channels)
        self.NIN_1 = PointwiseLinear(channels, channels)
        self.NIN_2 = PointwiseLinear(channels, channels)
        self.NIN_3 = PointwiseLinear(channels, channels, scale=1e-10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        query, key, value = (net(h).flatten(2) for net in (self.NIN_0, self.NIN_1, self.NIN_2))
        weights = (torch.einsum("bcn,bcm->bnm", query, key) * query.shape[1] ** -0.5).softmax(-1)
        attended = torch.einsum("bnm,bcm->bcn", weights, value)
        return joined(x, self.NIN_3(attended.view_as(x)), self.rescale)


class ResidualBlock(nn.Module):
    """Two convolutions; time, and λ after `add_lam_layer`, are added to the channels between them."""

    def __init__(self, in_channels: int, out_channels: int, *, time_width: int, dropout: float, rescale: bool):
        super().__init__()
        self.rescale = rescale
        self.groupnorm0 = group_norm(in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.dense0 = nn.Linear(time_width, out_channels)
        nn.init.zeros_(self.dense0.bias)
        self.groupnorm1 = group_norm(out_channels)
        self.dropout0 = nn.Dropout(dropout)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin = PointwiseLinear(in_channels, out_channels) if in_channels != out_channels else None

    def add_lam_layer(self, lam_width: int, scale: float) -> None:
        """A projection of λ whose weights start with standard deviation scale/√lam_width."""
        self.dense1 = nn.Linear(lam_width, self.conv1.in_channels)
        nn.init.normal_(self.dense1.weight, std=scale / math.sqrt(lam_width))
        nn.init.zeros_(self.dense1.bias)

    def forward(self, x: Tensor, time: Tensor, lam: Tensor | None) -> Tensor:
        """[B, C', H, W] from x [B, C, H, W], time [B, time_width] and λ [B, lam_width] or None."""
        h = self.conv0(nn.functional.silu(self.groupnorm0(x)))
        h = h + self.dense0(nn.functional.silu(time))[:, :, None, None]
        if lam is not None:
            h = h + self.dense1(nn.functional.silu(lam))[:, :, None, None]
        h = self.conv1(self.dropout0(nn.functional.silu(self.groupnorm1(h))))
        return joined(x if self.nin is None else self.nin(x), h, self.rescale)


class Downsample(nn.Module):
    """Half the side, by a convolution with stride 2 that is padded on the right and below."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the side: each pixel four times, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))


def joined(x: Tensor, h: Tensor, rescale: bool) -> Tensor:
    """The residual sum x + h, over √2 if `rescale`."""
    return (x + h) / math.sqrt(2.0) if rescale else x + h
