"""MaskGIT's bidirectional transformer over image tokens (Chang et al. 2022; layout of Halton-MaskGIT, Besnier et al.).

    x_t, class ─ tok_emb + pos_emb ─ first_layer ─┐
                        λ tokens ─── first_layer ─┴ blocks ─ last_layer ─ drop class and λ ─ features [B·M, D, H]

Parameter names are those of the public checkpoints, which hold the tied output head once: see `with_tied_output_head`.
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from di4c.contracts import AffineRows, Context, TwoPartBackbone
from di4c.errors import SpecError

_WIDE_EPS = 1e-12  # LayerNorm eps around the blocks; inside them it is torch's 1e-5


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: nn.Dropout) -> Tensor:
    """softmax(q·kᵀ/√c)·v with dropout of the weights: [B, heads, N, c]; by SDPA where nothing is dropped."""
    if not dropout.training or dropout.p == 0.0:
        return nn.functional.scaled_dot_product_attention(query, key, value)
    weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
    return dropout(weights) @ value


class SelfAttention(nn.Module):
    """Multi-head attention with biases and nn.MultiheadAttention's parameter names, whose projections are called.

    nn.MultiheadAttention reads its output projection's weight without calling it, which ZeRO-3 cannot gather. Its dropout of the
    attention weights is a module here, whose masks belong to examples in training; SDPA's own belong to the batch.
    """

    def __init__(self, width: int, heads: int, *, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Attended features: [B, N, H] from [B, N, H]."""
        projected = nn.functional.linear(h, self.in_proj_weight, self.in_proj_bias)
        query, key, value = rearrange(projected, "b n (three heads c) -> three b heads n c", three=3, heads=self.heads)
        return self.out_proj(rearrange(attend(query, key, value, self.dropout), "b heads n c -> b n (heads c)"))


class PreNorm(nn.Module):
    """h + fn(norm(h))."""

    def __init__(self, width: int, fn: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, h: Tensor) -> Tensor:
        return h + self.fn(self.norm(h))


def _block(width: int, heads: int, mlp_width: int, dropout: float) -> nn.Module:
    """Attention, then a two-layer perceptron, each normalised first."""
    attention = SelfAttention(width, heads, dropout=dropout)
    perceptron = nn.Sequential(
        nn.Linear(width, mlp_width), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_width, width), nn.Dropout(dropout)
    )
    return nn.Sequential(
        PreNorm(width, nn.Sequential(OrderedDict(mha=attention))),
        PreNorm(width, nn.Sequential(OrderedDict(net=perceptron))),
    )


class TiedOutputHead(AffineRows):
    """Logits h·wᵀ + b_d from the embedding's weight w and a bias per position, cut to the process's S states.

    Holds the very Parameters of the backbone, so that a call of the output head alone gathers them.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, *, num_states: int):
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.num_states = num_states

    def logits(self, h: Tensor, positions: Tensor) -> Tensor:
        states = slice(0, self.num_states)
        return nn.functional.linear(h, self.weight[states]) + self.bias[positions, states].unsqueeze(1)


class MaskGITBackbone(TwoPartBackbone):
    """The MaskGIT transformer: features [B·M, D, H]; it takes no time input, t is ignored.

    Vocabulary of `tok_emb`: the S − 1 codes, the mask, the classes, the dropped class (cond = −1, or no cond at all).
    The class token follows the image tokens; λ tokens come last and have no position embedding.
    """

    accepts = frozenset({"tokens", "start", "trunk"})
    replayable = True
    reads_time = False

    def __init__(
        self,
        num_positions: int,
        num_states: int,
        *,
        num_classes: int | None = None,
        width: int = 768,
        depth: int = 24,
        heads: int = 16,
        mlp_width: int = 3072,
        dropout: float = 0.1,
    ):
        super().__init__()
        if width % heads:
            raise SpecError(f"backbone maskgit: width {width} is not a multiple of heads {heads}")
        self.width, self.depth = width, depth
        self.num_positions, self.num_states, self.num_classes = num_positions, num_states, num_classes or 0
        rows = num_states + self.num_classes + 1
        self.pos_emb = nn.Parameter(_narrow(torch.empty(1, num_positions + 1, width)))
        self.bias = nn.Parameter(torch.zeros(num_positions + 1, rows))
        self.tok_emb = nn.Embedding(rows, width)
        _narrow(self.tok_emb.weight)
        self.first_layer = nn.Sequential(
            nn.LayerNorm(width, eps=_WIDE_EPS),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.LayerNorm(width, eps=_WIDE_EPS),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )
        blocks = nn.ModuleList(_block(width, heads, mlp_width, dropout) for _ in range(depth))
        self.transformer = nn.ModuleDict({"layers": blocks})
        self.last_layer = nn.Sequential(
            nn.LayerNorm(width, eps=_WIDE_EPS),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.LayerNorm(width, eps=_WIDE_EPS),
        )
        self.readout = TiedOutputHead(self.tok_emb.weight, self.bias, num_states=num_states)

    def before(self, x_t: Tensor, t: Tensor, cond: Tensor | None, start: int) -> tuple[Tensor]:
        """Features of the image tokens and the class token [B, D + 1, H]."""
        return (self._through(self.transformer["layers"][:start], self.first_layer(self._embed(x_t, cond))),)

    def after(self, trunk: tuple[Tensor, ...], context: Context | None) -> Tensor:
        (h,) = trunk
        if context is not None:
            if context.tokens is not None and not 0 <= context.start < self.depth:
                raise SpecError(f"backbone maskgit: no block {context.start}; there are 0 to {self.depth - 1}")
            h = self._through(self.transformer["layers"][context.start :], self._join(h, context))
        return self.last_layer(h[:, : self.num_positions])

    def _through(self, blocks: nn.ModuleList, h: Tensor) -> Tensor:
        for block in blocks:
            h = block(h)
        return h

    def _embed(self, x_t: Tensor, cond: Tensor | None) -> Tensor:
        """Token plus position embeddings, the class token last: [B, D + 1, H]."""
        dropped = self.num_states + self.num_classes
        label = torch.full_like(x_t[:, 0], dropped)
        if cond is not None:
            label = torch.where(cond < 0, label, cond + self.num_states)
        return self.tok_emb(torch.cat([x_t, label.unsqueeze(1)], dim=1)) + self.pos_emb

    def _join(self, h: Tensor, context: Context) -> Tensor:
        """The sequence of every component with its λ tokens at the end: [B·M, D + 1 + K, H]."""
        copies = repeat(h, "b n c -> (b m) n c", m=context.components)
        if context.tokens is None:
            return copies
        return torch.cat([copies, self.first_layer(context.tokens.to(h.dtype))], dim=1)


def _narrow(weight: Tensor) -> Tensor:
    """Truncated normal of scale 0.02 in place, as MaskGIT initialises embeddings; a tied output needs them small."""
    return nn.init.trunc_normal_(weight, std=0.02)


def with_tied_output_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict together with the names that this backbone's output head gives to tensors in it."""
    tied = {"readout.weight": "tok_emb.weight", "readout.bias": "bias"}
    return {**state, **{name: state[source] for name, source in tied.items() if source in state}}
