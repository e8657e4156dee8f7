"""MDLM's diffusion transformer, with the λ token of Di4C's language students.

    x_t ─ vocab_embed ─┐
       λ tokens ───────┴─ blocks (adaLN by silu(sigma_map(σ))) ─ drop λ ─ output_layer ─ features ─ readout

Parameters have the published names, but for the last linear layer: `output_layer.linear` there is `readout.linear`
here.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from di4c.contracts import Backbone, Context
from di4c.errors import SpecError
from di4c_plugins.backbones.dit import LinearReadout, enter
from di4c_plugins.backbones.sinusoid import sinusoid
from di4c_plugins.processes.noise import discretised, noise_schedule

PUBLISHED_NAMES = {"output_layer.linear.": "readout.linear."}
"""Published prefix → prefix here; `rotary_emb.inv_freq` of published files is recomputed and not kept."""


class MdlmDiT(Backbone):
    """Pre-norm transformer with rotary positions and adaLN on σ (Sahoo et al. 2024).

    Defaults are the published small model.
    time_conditioning: whether the network sees σ(t) of the schedule `noise`; the published language models see σ = 0.
    conditioning_grid: T > 0 conditions at ⌊tT⌋/T + 1/T as the reference code does when trained on a grid.
    λ tokens stand at the end without rotation and pass through adaLN as all others do.
    """

    accepts = frozenset({"tokens", "embedding", "start"})

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
        self.head_width, self.rotary_base = width // heads, rotary_base
        self.time_conditioning, self.noise, self.grid = time_conditioning, noise_schedule(noise), conditioning_grid
        self.vocab_embed = VocabularyEmbedding(num_states, width)
        self.sigma_map = SigmaEmbedding(conditioning_width, sigma_features)
        self.blocks = nn.ModuleList(Block(width, heads, conditioning_width, mlp_ratio, dropout) for _ in range(depth))
        self.output_layer = FinalNorm(width, conditioning_width)
        self.readout = LinearReadout(width, num_states)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None) -> Tensor:
        return self.features_at(x_t, self.sigma(t), context)

    def sigma(self, t: Tensor) -> Tensor:
        """What the network is told of time: [B] float32, σ(t), or zeros without time conditioning."""
        if not self.time_conditioning:
            return torch.zeros_like(t, dtype=torch.float32)
        return self.noise.sigma(discretised(t, self.grid) if self.grid else t).float()

    def features_at(self, x_t: Tensor, sigma: Tensor, context: Context | None = None) -> Tensor:
        """Features at a given total noise σ [B]: [B·M, D, H]."""
        h, c = self.vocab_embed(x_t), self.sigma_map(sigma)
        positions = x_t.shape[1]
        rotary = rotary_angles(positions, self.head_width, self.rotary_base, h)
        lam = context if context is not None and context.modulation is None else None
        start = lam.start if lam is not None else self.depth
        for block in self.blocks[:start]:
            h = block(h, F.silu(c), rotary)
        if lam is not None:
            h, c = enter(h, c, lam)
            for block in self.blocks[start:]:
                h = block(h, F.silu(c), rotary)
        return self.output_layer(h[:, :positions], F.silu(c))


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """x [B, heads, D + K, head width] with its first D positions rotated, halves paired (the published convention)."""
    cos, sin = (r.to(x) for r in rotary)
    a, b = x[..., : len(cos), :].chunk(2, dim=-1)
    turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    return torch.cat([turned, x[..., len(cos) :, :]], dim=-2) if x.shape[-2] > len(cos) else turned


def rotary_angles(positions: int, head_width: int, base: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) of position·base^(−2k/head_width): [D, head_width/2] each, in the dtype and on the device of `like`.

    Recomputed at every call: a buffer would be rounded with the weights where a model is cast to bfloat16.
    """
    exponents = torch.arange(0, head_width, 2, dtype=torch.float64, device=like.device) / head_width
    angles = torch.arange(positions, dtype=torch.float64, device=like.device)[:, None] * base**-exponents
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


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

    def __init__(self, width: int, heads: int, conditioning_width: int, mlp_ratio: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=False)
        hidden = mlp_ratio * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.adaLN_modulation = zeroed(nn.Linear(conditioning_width, 6 * width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """h [B, D + K, H], conditioning c [B, C] after its SiLU → [B, D + K, H]."""
        modulation = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
        h = h + gate_a * self.dropout(self.attend(self.norm1(h) * (1 + scale_a) + shift_a, rotary))
        return h + gate_m * self.dropout(self.mlp(self.norm2(h) * (1 + scale_m) + shift_m))

    def attend(self, h: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = rearrange(self.attn_qkv(h), "b d (three n w) -> three b n d w", three=3, n=self.heads)
        mixed = F.scaled_dot_product_attention(rotate(q, rotary), rotate(k, rotary), v)
        return self.attn_out(rearrange(mixed, "b n d w -> b d (n w)"))


class FinalNorm(nn.Module):
    """The last norm, scaled and shifted by the conditioning."""

    def __init__(self, width: int, conditioning_width: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, bias=False)
        self.adaLN_modulation = zeroed(nn.Linear(conditioning_width, 2 * width))

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
        return self.norm_final(h) * (1 + scale) + shift


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with weight and bias 0 (adaLN-zero)."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
