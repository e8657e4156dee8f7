"""The convolutional blocks of VQGAN's encoder and decoder (Esser et al. 2021), under the published parameter names."""

from einops import rearrange
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups (fewer where there are fewer channels), eps 1e-6."""
    return nn.GroupNorm(min(32, channels), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Twice norm, swish, 3 × 3 convolution, added to the input (through a 1 × 1 convolution if the width changes)."""

    def __init__(self, channels: int, out_channels: int, *, dropout: float):
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        h = self.conv2(self.dropout(nn.functional.silu(self.norm2(h))))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class SpatialAttention(nn.Module):
    """Single-head attention over all pixels, scale C^(−1/2), added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        query, key, value = (rearrange(f(h), "b c h w -> b 1 (h w) c") for f in (self.q, self.k, self.v))
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(rearrange(attended, "b 1 (h w) c -> b c h w", h=x.shape[2]))


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest scale."""

    def __init__(self, channels: int, *, dropout: float):
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, dropout=dropout)
        self.attn_1 = SpatialAttention(channels)
        self.block_2 = ResidualBlock(channels, channels, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """The blocks at one scale, attention after each if `attend`, then a change of scale if there is one."""

    def __init__(self, channels: int, out_channels: int, blocks: int, *, attend: bool, dropout: float):
        super().__init__()
        widths = [channels, *[out_channels] * (blocks - 1)]
        self.block = nn.ModuleList(ResidualBlock(width, out_channels, dropout=dropout) for width in widths)
        self.attn = nn.ModuleList(SpatialAttention(out_channels) for _ in range(blocks if attend else 0))
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        rescale = self.downsample or self.upsample
        return x if rescale is None else rescale(x)
