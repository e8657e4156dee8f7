"""MDLM's diffusion transformer, with the λ token of Di4C's language students.

    x_t ─ vocab_embed ─┐
       λ tokens ───────┴─ blocks (adaLN by silu(sigma_map(σ))) ─ drop λ ─ output_layer ─ features ─ output head

Parameters have the published names, but for the last linear layer: `output_layer.linear` there is `readout.linear`
here.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from di4c.contracts import Context, TwoPartBackbone
from di4c.errors import SpecError
from di4c_plugins.backbones.dit import LinearOutputHead, enter, zeroed
from di4c_plugins.backbones.modulation import (
    ModulatedLayerNorm,
    Modulation,
    add_gated,
    modulations,
    of_all,
    shift_and_scale,
)
from di4c_plugins.backbones.rotary import Rotary, Turns
from di4c_plugins.backbones.sinusoid import sinusoid
from di4c_plugins.processes.noise import discretised, noise_schedule

PUBLISHED_READOUT = ("output_layer.linear.", "readout.linear.")
"""Published prefix → prefix here; `rotary_emb.inv_freq` of published files is not read: the angles follow from `rotary_base`."""


class MdlmDiT(TwoPartBackbone):
    """Pre-norm transformer with rotary positions and adaLN on σ (Sahoo et al. 2024).

    Defaults are the published small model.
    time_conditioning: whether the network sees σ(t) of the schedule `noise`; the published language models see σ = 0.
    conditioning_grid: T > 0 conditions at ⌊tT⌋/T + 1/T as the reference code does when trained on a grid.
    λ tokens stand at the end without rotation and pass through adaLN as all others do.
    """

    accepts = frozenset({"tokens", "embedding", "start", "trunk"})
    replayable = True

    def __init__(
        self,
        num_positions: int,
        num_states: int,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        conditioning_width: int = 128,
        sigma_features: int = 256,
        dropout: float = 0.1,
        mlp_ratio: int = 4,
        rotary_base: float = 10000.0,
        time_conditioning: bool = False,
        noise: str = "log-linear",
        conditioning_grid: int = 0,
        num_classes: int | None = None,
    ):
        super().__init__()
        if num_classes is not None:
            raise SpecError(
                "backbone mdlm-dit takes no class labels; the data have some. Use backbone dit for such data"
            )
        if width % heads or (width // heads) % 2:
            raise SpecError(f"backbone mdlm-dit: width {width} over {heads} heads must give an even whole number")
        self.width, self.depth, self.embedding_width = width, depth, conditioning_width
        self.rotary = Rotary(language_angles(num_positions, width // heads, rotary_base), heads, "halves")
        self.reads_time = time_conditioning
        self.time_conditioning, self.noise, self.grid = time_conditioning, noise_schedule(noise), conditioning_grid
        self.vocab_embed = VocabularyEmbedding(num_states, width)
        self.sigma_map = SigmaEmbedding(conditioning_width, sigma_features)
        self.blocks = nn.ModuleList(Block(width, conditioning_width, mlp_ratio, dropout) for _ in range(depth))
        self.output_layer = FinalNorm(width, conditioning_width)
        self.readout = LinearOutputHead(width, num_states)

    def before(self, x_t: Tensor, t: Tensor, cond: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        """Features [B, D, H] and conditioning [B, C], or [1, C] without time conditioning."""
        return self._before(x_t, self.sigma(t), start)

    def after(self, trunk: tuple[Tensor, ...], context: Context | None) -> Tensor:
        (h, c), positions = trunk, trunk[0].shape[1]
        if context is not None:
            h, c = enter(h, c, context)
            h = self._through(self.blocks[context.start :], h, c, positions)
        return self.output_layer(h[:, :positions], F.silu(c))

    def sigma(self, t: Tensor) -> Tensor:
        """What the network is told of time: [B] float32, σ(t), or one zero for all without time conditioning."""
        if not self.time_conditioning:
            return t.new_zeros(1, dtype=torch.float32)
        return self.noise.sigma(discretised(t, self.grid) if self.grid else t).float()

    def features_at(self, x_t: Tensor, sigma: Tensor, context: Context | None = None) -> Tensor:
        """Features at a given total noise σ [B] (or [1], of all): [B·M, D, H]."""
        return self.after(self._before(x_t, sigma, self.depth if context is None else context.start), context)

    def _before(self, x_t: Tensor, sigma: Tensor, start: int) -> tuple[Tensor, Tensor]:
        c = self.sigma_map(sigma)
        return self._through(self.blocks[:start], self.vocab_embed(x_t), c, x_t.shape[1]), c

    def _through(self, blocks: nn.ModuleList, h: Tensor, c: Tensor, positions: int) -> Tensor:
        c, turns = F.silu(c), self.rotary(positions, h.shape[1] - positions, h)
        norms = [norm for block in blocks for norm in (block.norm1, block.norm2)]
        parts = of_all([block.adaLN_modulation for block in blocks], norms, c, self.width)
        for number, block in enumerate(blocks):
            h = block(h, c, turns, parts[2 * number : 2 * number + 2])
        return h


def language_angles(positions: int, head_width: int, base: float) -> Tensor:
    """Rotary angles position·base^(−2k/head_width): [D, head_width/2] float64."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.float64) / head_width
    return torch.arange(positions, dtype=torch.float64)[:, None] * base**-exponents


class VocabularyEmbedding(nn.Module):
    """Token embedding with the published parameter's name."""

    def __init__(self, num_states: int, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(num_states, width))
        nn.init.kaiming_uniform_(self.embedding, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, self.embedding)


class SigmaEmbedding(nn.Module):
    """An embedding of σ [B]: [B, C], from [cos, sin] at `features`/2 frequencies."""

    def __init__(self, width: int, features: int):
        super().__init__()
        self.features = features
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, sigma: Tensor) -> Tensor:
        embedded = sinusoid(sigma, self.features, sine_first=False, inclusive=False)
        return self.mlp(embedded.to(self.mlp[0].weight.dtype))


class Block(nn.Module):
    """Attention and MLP without biases in the attention, each scaled, shifted and gated by the conditioning."""

    def __init__(self, width: int, conditioning_width: int, mlp_ratio: int, dropout: float):
        super().__init__()
        self.norm1 = ModulatedLayerNorm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = ModulatedLayerNorm(width)
        hidden = mlp_ratio * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.adaLN_modulation = zeroed(nn.Linear(conditioning_width, 6 * width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, c: Tensor, turns: Turns, parts: Sequence[Modulation] = ()) -> Tensor:
        """h [B, D + K, H], conditioning c [1 or B, C] after its SiLU → [B, D + K, H]. parts: what `of_all` gave for c."""
        weighted = len(parts) > 0
        of_attention, of_mlp = parts or modulations(self.adaLN_modulation(c), h.shape[-1])
        mixed = self.mix(self.norm1(h, of_attention.shift, of_attention.scale, weighted), turns)
        h = add_gated(h, of_attention.gate, mixed, self.attn_out, self.dropout)
        first, activation, last = self.mlp
        hidden = activation(first(self.norm2(h, of_mlp.shift, of_mlp.scale, weighted)))
        return add_gated(h, of_mlp.gate, hidden, last, self.dropout)

    def mix(self, h: Tensor, turns: Turns) -> Tensor:
        """What attention leaves of h, before its last layer."""
        mixed = F.scaled_dot_product_attention(*turns.split(self.attn_qkv(h)))
        return rearrange(mixed, "b n d w -> b d (n w)")


class FinalNorm(nn.Module):
    """The last norm, scaled and shifted by the conditioning."""

    def __init__(self, width: int, conditioning_width: int):
        super().__init__()
        self.norm_final = ModulatedLayerNorm(width)
        self.adaLN_modulation = zeroed(nn.Linear(conditioning_width, 2 * width))

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        return self.norm_final(h, *shift_and_scale(self.adaLN_modulation(c)))
