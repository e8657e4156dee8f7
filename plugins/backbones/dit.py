"""A small bidirectional diffusion transformer."""

import math

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from di4c.contracts import AffineOutputHead, Context, Reduction, TwoPartBackbone
from di4c.errors import SpecError
from di4c_plugins.backbones.modulation import ModulatedLayerNorm, add_gated, modulations, shift_and_scale
from di4c_plugins.backbones.rotary import Rotary, Turns


class DiT(TwoPartBackbone):
    """Pre-norm transformer with RoPE, adaLN conditioning on time and class (Peebles & Xie 2023), attention by SDPA.

    Positions are a sequence, or, with `grid=[rows, columns]`, an image whose rotary angles follow rows and columns. Learned
    position embeddings are added too (`absolute_positions`): rotary angles alone cannot tell positions apart while all are
    masked. Extra tokens (Context.tokens) stand at the end, without rotation. λ may enter at any block (Context.start).
    recompute: keep the inputs of the blocks only and run each once more in the backward pass, for a fraction of the memory.
    """

    accepts = frozenset({"tokens", "embedding", "start", "trunk"})
    replayable = True

    def __init__(
        self,
        num_positions: int,
        num_states: int,
        *,
        width: int,
        depth: int,
        heads: int,
        num_classes: int | None = None,
        grid: list[int] | None = None,
        time_conditioning: bool = True,
        absolute_positions: bool = True,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        recompute: bool = False,
    ):
        if min(width, depth, heads) < 1 or width % heads or (width // heads) % 2:
            raise SpecError(
                f"backbone dit: width {width} over {heads} heads must give an even whole number, and depth {depth} be at least 1"
            )
        if grid and math.prod(grid) != num_positions:
            raise SpecError(
                f"backbone dit: a grid of {' × '.join(map(str, grid))} has not the {num_positions} positions of the data"
            )
        super().__init__()
        self.width, self.depth, self.embedding_width = width, depth, width
        self.recompute, self.reads_time = recompute, time_conditioning
        self.tokens = nn.Embedding(num_states, width)
        self.positions = nn.Embedding(num_positions, width) if absolute_positions else None
        self.conditioning = Conditioning(width, num_classes, time_conditioning)
        self.rotary = Rotary(grid_angles(grid or [num_positions], width // heads), heads, "neighbours")
        self.blocks = nn.ModuleList(Block(width, mlp_ratio, dropout) for _ in range(depth))
        self.final = ModulatedNorm(width)
        self.readout = LinearOutputHead(width, num_states)

    def before(self, x_t: Tensor, t: Tensor, cond: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """Features [B, D, H] and conditioning [B, C], or [1, C] where neither time nor labels tell examples apart."""
        h, c = self.tokens(x_t), self.conditioning(t, cond)
        if self.positions is not None:
            h = h + self.positions(torch.arange(x_t.shape[1], device=x_t.device))
        return self._through(self.blocks[:start], h, c, x_t.shape[1]), c

    def after(self, trunk: tuple[Tensor, ...], context: Context | None) -> Tensor:
        (h, c), positions = trunk, trunk[0].shape[1]
        if context is not None:
            h, c = enter(h, c, context)
            h = self._through(self.blocks[context.start :], h, c, positions)
        return self.final(h[:, :positions], F.silu(c))

    def _through(self, blocks: nn.ModuleList, h: Tensor, c: Tensor, positions: int) -> Tensor:
        c, turns = F.silu(c), self.rotary(positions, h.shape[1] - positions, h)
        for block in blocks:
            again = self.recompute and torch.is_grad_enabled()
            h = checkpoint(block, h, c, turns, use_reentrant=False) if again else block(h, c, turns)
        return h


def enter(h: Tensor, c: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Features [B, D, H] and conditioning [1 or B, C] with λ: [B·M, D + K, H] and [1 or B·M, C]."""
    h = repeat(h, "b d h -> (b m) d h", m=context.components)
    if len(c) > 1:
        c = repeat(c, "b c -> (b m) c", m=context.components)
    if context.embedding is not None:
        c = c + context.embedding.to(c)
    if context.tokens is not None:
        h = torch.cat([h, context.tokens.to(h)], dim=1)
    return h, c


class Conditioning(nn.Module):
    """Time and class embedding: [B, C], or [1, C] if all are the same. A missing label (−1, or no labels at all) has an embedding of its own."""

    def __init__(self, width: int, num_classes: int | None, time_conditioning: bool, frequencies: int = 64):
        super().__init__()
        self.frequencies = frequencies
        self.time = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.time_conditioning = time_conditioning

    def forward(self, t: Tensor, cond: Tensor | None) -> Tensor:
        if not self.time_conditioning:
            t = torch.zeros_like(t if self.label is not None else t[:1])
        c = self.time(sinusoid(1000 * t, self.frequencies).to(self.time[0].weight))
        if self.label is None:
            return c
        missing = self.label.num_embeddings - 1
        index = torch.full_like(t, missing, dtype=torch.long) if cond is None else cond.masked_fill(cond < 0, missing)
        return c + self.label(index)


def sinusoid(values: Tensor, frequencies: int, longest: float = 10_000.0) -> Tensor:
    """[cos, sin] of values [B] at geometrically spaced frequencies: [B, 2·frequencies] float32."""
    powers = torch.arange(frequencies, device=values.device, dtype=torch.float64) / frequencies
    angles = values.double()[:, None] * longest**-powers
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


def grid_angles(grid: list[int], head_width: int) -> Tensor:
    """Rotary angles of a sequence, or of a grid's rows and columns, each axis with an equal share: [D, head_width/2] float64."""
    pairs = head_width // 2 // len(grid)
    frequencies = 100.0 ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = torch.cat([axis.flatten()[:, None] * frequencies for axis in axes], dim=-1)
    return F.pad(angles, (0, head_width // 2 - angles.shape[-1]))


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with weight and bias 0 (adaLN-zero; of an output head the uniform prediction)."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Attention and MLP, each scaled, shifted and gated by the conditioning; the gates start open."""

    def __init__(self, width: int, mlp_ratio: float, dropout: float):
        super().__init__()
        # on what joins the residual stream: SDPA with dropout inside has no fast CPU kernel
        self.dropout = nn.Dropout(dropout)
        self.norm = ModulatedLayerNorm(width, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        hidden = int(mlp_ratio * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def forward(self, h: Tensor, c: Tensor, turns: Turns) -> Tensor:
        """h [B, D + K, H], conditioning c [1 or B, C] after its SiLU → [B, D + K, H]."""
        of_attention, of_mlp = modulations(self.modulation(c), h.shape[-1], closed=False)
        mixed = self.mix(self.norm(h, of_attention.shift, of_attention.scale), turns)
        h = add_gated(h, of_attention.gate, mixed, self.out, self.dropout)
        first, activation, last = self.mlp
        hidden = activation(first(self.norm(h, of_mlp.shift, of_mlp.scale)))
        return add_gated(h, of_mlp.gate, hidden, last, self.dropout)

    def mix(self, h: Tensor, turns: Turns) -> Tensor:
        """What attention leaves of h, before its last layer."""
        mixed = F.scaled_dot_product_attention(*turns.split(self.qkv(h)))
        return rearrange(mixed, "b n d w -> b d (n w)")


class ModulatedNorm(nn.Module):
    """The last norm, scaled and shifted by the conditioning."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = ModulatedLayerNorm(width, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """h [B, D, H], conditioning c [1 or B, C] after its SiLU → [B, D, H]."""
        return self.norm(h, *shift_and_scale(self.modulation(c)))


class LinearOutputHead(nn.Module):
    """logits = h·Wᵀ + b, untied; starts at 0, the uniform prediction."""

    affine = True

    def __init__(self, width: int, num_states: int):
        super().__init__()
        self.linear = zeroed(AffineOutputHead(width, num_states))

    def forward(self, h: Tensor, *rows: Tensor, reduction: Reduction | None = None) -> Tensor | tuple[Tensor, ...]:
        return self.linear(h, *rows, reduction=reduction)
