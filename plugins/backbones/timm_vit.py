"""A vision transformer of timm over image tokens or patches of pixels, from its pretrained weights.

x_t ─ embedding (of a token, or of a patch's levels) + pos_embed ─┐
t, class ─ c ─── added in front of every block ───────────────────┴ blocks ─ norm ─ (a patch's pixels apart) ─ features
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from di4c.contracts import Context, TwoPartBackbone
from di4c.errors import SpecError
from di4c_plugins.backbones.dit import Conditioning, LinearOutputHead, enter
from di4c_plugins.timm_models import timm_model

WHERE = "backbone timm-vit"
DROPPED = ("attn_drop_rate", "drop_path_rate")
"""timm's dropout in functions and of whole blocks, whose draws belong to the batch and not to examples."""


class TimmViT(TwoPartBackbone):
    """Blocks, norms, positions and rotary angles of timm's ViT or EVA families, conditioned on time and class.

    model: a name of timm (vit_small_patch16_224, vit_base_patch16_rope_reg1_gap_256, eva02_small_patch14_224, …).
    grid: [rows, columns] of the image, in tokens or, with `patch`, in pixels.
    patch: null where every position is a token of the grid; else positions are the levels of pixels of `channels`
        colours, as image data sets have them, and a square of so many pixels a side is one token.
    channels: the colours of a pixel, 1 or 3, where there is a `patch`.
    pixel_width: the width of a pixel's embedding and features, where there is a `patch`.
    time_conditioning: whether the network is told the time.
    pretrained: weights of the model, a file, a folder, or "hub"; positions and patches are resampled to the grid.
    options: given to timm.create_model, e.g. {depth: 4, embed_dim: 96}.

    λ may enter by the conditioning, at any block, and, without `patch`, by extra tokens, which stand at the end. What timm
    does not have (embedding, conditioning, output head) starts anew. Rotary models get learned positions too: angles alone
    cannot tell positions apart while all are masked.
    """

    accepts = frozenset({"tokens", "embedding", "start", "trunk"})

    def __init__(
        self,
        num_positions: int,
        num_states: int,
        *,
        model: str,
        grid: list[int],
        patch: int | None = None,
        channels: int = 1,
        pixel_width: int = 32,
        num_classes: int | None = None,
        time_conditioning: bool = True,
        pretrained: str | None = None,
        options: dict[str, Any] | None = None,
        weights: bool = True,
    ):
        side, channels = (1, 1) if patch is None else (patch, channels)
        _check(num_positions, grid, side, channels, options or {})
        super().__init__()
        given = {"in_chans": 3 if patch is None else channels, "img_size": tuple(grid), "patch_size": side}
        vit = timm_model(model, pretrained if weights else None, WHERE, **{**given, **(options or {})})
        vit = _plain(vit, model)
        shape = [rows // side for rows in grid]
        self.width = self.embedding_width = width = vit.embed_dim
        self.depth, self.reads_time = len(vit.blocks), time_conditioning
        self.cells = None
        if patch is None:
            self.embedding = nn.Embedding(num_states, width)
        else:
            self.embedding = PatchEmbedding(num_states, pixel_width, vit.patch_embed.proj)
            self.cells = nn.Linear(width, channels * side * side * pixel_width)
            self.width = pixel_width
            self.accepts = self.accepts - {"tokens"}  # a head makes them as wide as features, which are pixels here
        self.axes = {"h": shape[0], "w": shape[1], "p": side, "q": side}
        pos_embed = getattr(vit, "pos_embed", None)
        cells = shape[0] * shape[1]
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(cells, width), std=0.02))
        if pos_embed is not None:
            self.positions.data.copy_(pos_embed.detach()[0, -cells:])
        self.rope = None if getattr(vit, "rope", None) is None else RopeTable(vit.rope.get_embed(shape=shape))
        self.conditioning = Conditioning(width, num_classes, time_conditioning)
        self.conditions = nn.ModuleList(nn.Linear(width, width) for _ in vit.blocks)
        for condition in self.conditions:
            nn.init.normal_(condition.weight, std=0.02)
            nn.init.zeros_(condition.bias)
        self.before_blocks, self.blocks = getattr(vit, "norm_pre", nn.Identity()), vit.blocks
        self.norm = getattr(vit, "fc_norm", vit.norm) if isinstance(vit.norm, nn.Identity) else vit.norm
        self.readout = LinearOutputHead(self.width, num_states)
        self.train()  # as every new module; timm's was in eval mode

    def before(self, x_t: Tensor, t: Tensor, cond: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """Features [B, N, H] of the N tokens of the grid, and conditioning [B, H]."""
        h = self.embedding(x_t if self.cells is None else rearrange(x_t, PATCHES, **self.axes))
        h, c = self.before_blocks(h + self.positions), self.conditioning(t, cond)
        return self._through(range(start), h, c, h.shape[1]), c

    def after(self, trunk: tuple[Tensor, ...], context: Context | None) -> Tensor:
        (h, c), tokens = trunk, trunk[0].shape[1]
        if context is not None:
            h, c = enter(h, c, context)
            h = self._through(range(context.start, self.depth), h, c, tokens)
        h = self.norm(h[:, :tokens])
        if self.cells is None:
            return h
        return rearrange(self.cells(h), "b (h w) (c p q e) -> b (c h p w q) e", e=self.width, **self.axes)

    def _through(self, blocks: range, h: Tensor, c: Tensor, tokens: int) -> Tensor:
        c, turned = F.silu(c), {}
        if self.rope is not None:
            turned["rope"] = self.rope(h.shape[1] - tokens)
        for number in blocks:
            h = self.blocks[number](h + self.conditions[number](c)[:, None], **turned)
        return h


PATCHES = "b (c h p w q) -> b (h w) (c p q)"
"""Pixels as image data sets order them → the pixels of every patch."""


class PatchEmbedding(nn.Module):
    """Levels [B, N, K] of the K pixels of a patch → [B, N, H]: every level embedded, the patch's embeddings projected.

    The first channel of a level is its grey value in [−1, 1], and its projection the model's own patch embedding; so
    pretrained weights see the image that they know, beside what is learnt of levels and masks.
    """

    def __init__(self, num_states: int, pixel_width: int, patches: nn.Module):
        super().__init__()
        self.levels = nn.Embedding(num_states, pixel_width)
        kernel = patches.weight.detach().flatten(1)
        self.project = nn.Linear(kernel.shape[1] * pixel_width, kernel.shape[0])
        with torch.no_grad():
            self.levels.weight.mul_(0.1)
            self.levels.weight[:, 0] = torch.linspace(-1, 1, num_states)
            self.project.weight.unflatten(1, (-1, pixel_width))[..., 0] = kernel
            if patches.bias is not None:
                self.project.bias.copy_(patches.bias)

    def forward(self, x_t: Tensor) -> Tensor:
        return self.project(self.levels(x_t).flatten(2))


class RopeTable(nn.Module):
    """timm's [sin, cos] of every token, and a row that does not turn for the tokens behind them; float32 whatever weights are."""

    table: Tensor

    def __init__(self, table: Tensor):
        super().__init__()
        if table.dim() != 2:
            raise SpecError(
                f"{WHERE}: rotary angles that differ from block to block are not supported; choose another model"
            )
        still = torch.cat([torch.zeros(table.shape[1] // 2), torch.ones(table.shape[1] // 2)])
        self.register_buffer("table", torch.cat([table.detach().float(), still[None]]), persistent=False)

    def forward(self, extra: int) -> Tensor:
        """[N + extra, 2·C]."""
        return torch.cat([self.table[:-1], self.table[-1:].expand(extra, -1)]) if extra else self.table[:-1]

    def _apply(self, fn: Callable, recurse: bool = True) -> "RopeTable":
        """As nn.Module's, but the table keeps its precision."""
        exact = self.table
        super()._apply(fn, recurse)
        self.table = exact.to(self.table.device)
        return self


def _check(num_positions: int, grid: list[int], side: int, channels: int, options: dict[str, Any]) -> None:
    """SpecError for sizes that do not fit together."""
    if len(grid) != 2 or side < 1 or any(length < 1 or length % side for length in grid):
        raise SpecError(f"{WHERE}: grid is {grid}; two numbers, rows and columns, that patches of {side} divide")
    if channels * grid[0] * grid[1] != num_positions:
        found = f"{channels} × {grid[0]} × {grid[1]}"
        raise SpecError(f"{WHERE}: a grid of {found} has not the {num_positions} positions of the data")
    wrong = [key for key in DROPPED if options.get(key)]
    if wrong:
        raise SpecError(
            f"{WHERE}: options.{wrong[0]} draws for the batch; use proj_drop_rate, which draws for examples"
        )


def _plain(vit: nn.Module, model: str) -> nn.Module:
    """The model, its blocks ready for sequences without class tokens. SpecError for one that is no plain vision transformer."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(vit, VisionTransformer | Eva) or not hasattr(vit.patch_embed, "proj"):
        raise SpecError(
            f"{WHERE}: {model} is no plain vision transformer; choose one of timm's ViT, DeiT, DINO or EVA models"
        )
    for block in vit.blocks:
        if hasattr(block.attn, "qkv_bias_separate"):
            block.attn.qkv_bias_separate = True  # the projection is called, as ZeRO-3 needs, and not its weight read
        if hasattr(block.attn, "num_prefix_tokens"):
            block.attn.num_prefix_tokens = 0
    return vit
