"""The order of a U-Net's blocks, and a pass through them that can stop at a block and go on from there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from di4c_plugins.backbones.unet_blocks import Downsample, ResidualBlock, SelfAttention, Upsample

Kind = Literal["block", "layer", "keep", "join"]


class Step(NamedTuple):
    """A part of the pass: a residual block, another layer, or a skip that is kept, or joined again.

    number: of the residual block that it is or follows, −1 before the first.
    """

    kind: Kind
    module: nn.Module | None
    number: int


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

    def down(self, modules: nn.ModuleList) -> list[Step]:
        """The way down, each output kept as a skip."""
        blocks, steps = iter(modules), Steps(-1)
        steps.add("keep")
        for scale in range(len(self.multipliers)):
            for _ in range(self.res_blocks):
                self._add_stage(steps, blocks, scale)
                steps.add("keep")
            if scale < len(self.multipliers) - 1:
                steps.add("layer", next(blocks))
                steps.add("keep")
        return steps.made

    def up(self, middle: nn.ModuleList, modules: nn.ModuleList) -> list[Step]:
        """The middle (block, attention, block) and the way up, each block given a skip."""
        blocks, steps = iter(modules), Steps(self.depth_down - 1)
        kinds: tuple[Kind, ...] = ("block", "layer", "block")
        for kind, module in zip(kinds, middle, strict=True):
            steps.add(kind, module)
        for scale in reversed(range(len(self.multipliers))):
            for _ in range(self.res_blocks + 1):
                steps.add("join")
                self._add_stage(steps, blocks, scale)
            if scale:
                steps.add("layer", next(blocks))
        return steps.made

    def _add_stage(self, steps: "Steps", blocks: Iterator[nn.Module], scale: int) -> None:
        steps.add("block", next(blocks))
        if scale == self.attention_at:
            steps.add("layer", next(blocks))


class Steps:
    """Steps in the making; residual blocks are numbered from `last` + 1 on."""

    def __init__(self, last: int):
        self.last, self.made = last, []

    def add(self, kind: Kind, module: nn.Module | None = None) -> None:
        self.last += kind == "block"
        self.made.append(Step(kind, module, self.last))


class Walk:
    """Features and skips on their way through the blocks, with the time embedding: B rows, or B·M once λ has joined."""

    def __init__(self, h: Tensor, time: Tensor, skips: list[Tensor]):
        self.h, self.time, self.skips = h, time, skips

    def through(self, steps: Iterable[Step], lam: Tensor | None = None) -> None:
        for kind, module, _ in steps:
            if kind == "block":
                self.h = module(self.h, self.time, lam)
            elif kind == "layer":
                self.h = module(self.h)
            elif kind == "keep":
                self.skips.append(self.h)
            else:
                self.h = torch.cat([self.h, self.skips.pop()], dim=1)
