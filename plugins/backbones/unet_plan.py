"""The order of a U-Net's blocks, and a pass through them that can stop at a block and go on from there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from di4c_plugins.backbones.unet_blocks import Downsample, ResidualBlock, SelfAttention, Upsample

Kind = Literal["block", "attention", "shrink", "grow", "keep", "join"]


class Step(NamedTuple):
    """A part of the pass: a residual block, another layer, or a skip that is kept, or joined again (module None).

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

    def parts(self) -> tuple[list[Kind], list[Kind], list[Kind]]:
        """The way down, each output kept as a skip; the middle; the way up, each block given a skip."""
        down: list[Kind] = ["keep"]
        up: list[Kind] = []
        last = len(self.multipliers) - 1
        for scale in range(last + 1):
            stage: list[Kind] = ["block", "attention"] if scale == self.attention_at else ["block"]
            down += [*stage, "keep"] * self.res_blocks + (["shrink", "keep"] if scale < last else [])
            up = ["join", *stage] * (self.res_blocks + 1) + (["grow"] if scale else []) + up
        return down, ["block", "attention", "block"], up

    def build(self, *, rescale: bool, **options: Any) -> list[nn.ModuleList]:
        """The modules of each part; the options are those of a ResidualBlock."""
        width, kept, scale, parts = self.channels, [], 0, []
        for part in self.parts():
            made = nn.ModuleList()
            for kind in part:
                if kind == "block":
                    before, width = width, self.channels * self.multipliers[scale]
                    made.append(ResidualBlock(before, width, rescale=rescale, **options))
                elif kind == "attention":
                    made.append(SelfAttention(width, rescale=rescale))
                elif kind == "keep":
                    kept.append(width)
                elif kind == "join":
                    width += kept.pop()
                else:
                    made.append((Downsample if kind == "shrink" else Upsample)(width))
                    scale += 1 if kind == "shrink" else -1
            parts.append(made)
        return parts

    def steps(self, *modules: nn.ModuleList) -> list[list[Step]]:
        """The steps of each part with its modules, the residual blocks numbered throughout."""
        number, parts = -1, []
        for part, made in zip(self.parts(), map(iter, modules), strict=True):
            steps = []
            for kind in part:
                number += kind == "block"
                steps.append(Step(kind, None if kind in ("keep", "join") else next(made), number))
            parts.append(steps)
        return parts


class Walk:
    """Features and skips on their way through the blocks, with the time embedding: B rows, or B·M once λ has joined."""

    def __init__(self, h: Tensor, time: Tensor, skips: list[Tensor]):
        self.h, self.time, self.skips = h, time, skips

    def through(self, steps: Iterable[Step], lam: Tensor | None = None) -> None:
        for kind, module, _ in steps:
            if kind == "block":
                self.h = module(self.h, self.time, lam)
            elif kind == "keep":
                self.skips.append(self.h)
            elif kind == "join":
                self.h = torch.cat([self.h, self.skips.pop()], dim=1)
            else:
                self.h = module(self.h)
