"""The order of a U-Net's blocks, and a pass through them that λ joins at a given block."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor, nn

from di4c.contracts import Context
from di4c_plugins.backbones.unet_blocks import Downsample, ResidualBlock, SelfAttention, Upsample


@dataclass(frozen=True)
class Plan:
    """res_blocks residual blocks a scale on the way down, one more on the way up; attention at one scale."""

    channels: int
    multipliers: tuple[int, ...]
    res_blocks: int
    attention_at: int

    @property
    def depth(self) -> int:
        """Residual blocks in all: what `Context.start` counts."""
        return len(self.multipliers) * (2 * self.res_blocks + 1) + 2

    @property
    def depth_down(self) -> int:
        """Residual blocks on the way down."""
        return len(self.multipliers) * self.res_blocks

    def build(self, **options) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
        """The blocks on the way down, in the middle, and on the way up; `options` are those of a ResidualBlock."""
        down, widths = [], [self.channels]
        for scale, multiplier in enumerate(self.multipliers):
            for _ in range(self.res_blocks):
                down += self._stage(widths[-1], multiplier, scale, options)
                widths.append(self.channels * multiplier)
            if scale < len(self.multipliers) - 1:
                down.append(Downsample(widths[-1]))
                widths.append(widths[-1])
        width = widths[-1]
        middle = [
            ResidualBlock(width, width, **options),
            self._attention(width, options),
            ResidualBlock(width, width, **options),
        ]
        up = []
        for scale, multiplier in reversed(list(enumerate(self.multipliers))):
            for _ in range(self.res_blocks + 1):
                up += self._stage(width + widths.pop(), multiplier, scale, options)
                width = self.channels * multiplier
            if scale:
                up.append(Upsample(width))
        return nn.ModuleList(down), nn.ModuleList(middle), nn.ModuleList(up)

    def _stage(self, in_width: int, multiplier: int, scale: int, options: dict) -> list[nn.Module]:
        """A residual block, with attention behind it at that scale."""
        width = self.channels * multiplier
        block = ResidualBlock(in_width, width, **options)
        return [block, self._attention(width, options)] if scale == self.attention_at else [block]

    def _attention(self, width: int, options: dict) -> SelfAttention:
        return SelfAttention(width, rescale=options["rescale"])


class Walk:
    """Features, skips and time embedding on their way through the blocks: of B rows until λ joins, then of B·M.

    λ joins at the residual block number `start`; without an embedding in the context it never does.
    """

    def __init__(self, plan: Plan, h: Tensor, time: Tensor, context: Context | None):
        self.plan, self.h, self.skips, self.time = plan, h, [h], time
        self.components = context.components if context is not None else 1
        self.start = context.start if context is not None else 0
        self.passed = 0

    def down(self, modules: nn.ModuleList, lam: Tensor | None) -> None:
        """The way down, each output kept as a skip."""
        blocks = iter(modules)
        for scale in range(len(self.plan.multipliers)):
            for _ in range(self.plan.res_blocks):
                self._stage(blocks, scale, lam)
                self.skips.append(self.h)
            if scale < len(self.plan.multipliers) - 1:
                self.h = next(blocks)(self.h)
                self.skips.append(self.h)

    def middle(self, modules: nn.ModuleList, lam: Tensor | None) -> None:
        """Block, attention, block."""
        self._block(modules[0], lam)
        self.h = modules[1](self.h)
        self._block(modules[2], lam)

    def up(self, modules: nn.ModuleList, lam: Tensor | None) -> None:
        """The way up, each block given a skip."""
        blocks = iter(modules)
        for scale in reversed(range(len(self.plan.multipliers))):
            for _ in range(self.plan.res_blocks + 1):
                self.h = torch.cat([self.h, self.skips.pop()], dim=1)
                self._stage(blocks, scale, lam)
            if scale:
                self.h = next(blocks)(self.h)

    def _stage(self, blocks: Iterator[nn.Module], scale: int, lam: Tensor | None) -> None:
        self._block(next(blocks), lam)
        if scale == self.plan.attention_at:
            self.h = next(blocks)(self.h)

    def _block(self, block: ResidualBlock, lam: Tensor | None) -> None:
        if lam is not None and self.passed == self.start:
            self.h, self.time, *self.skips = (
                repeat(x, "b ... -> (b m) ...", m=self.components) for x in (self.h, self.time, *self.skips)
            )
        self.h = block(self.h, self.time, lam if self.passed >= self.start else None)
        self.passed += 1
