"""tauLDR's U-Net over grey levels (Campbell et al. 2022), and the λ layers of Di4C's pixel student.

    x_t ─ centre ─ input_conv ─ down ─ middle ─ up ─ output ─┬─ μ = tanh(x + ·) ┐
            t ─ temb ─────────── + ──── + ───── +            └─ log-scale ──────┴─ truncated logistic ─ logits
            λ, t ─ tlam_mix ──── +      │       │
            λ, t, mean of down's output ┴───────┴ h_t_lam_mix

Parameter names are those of the public checkpoints after their prefix `net.`.
"""

import math

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from di4c.contracts import Backbone, Context, TwoPartBackbone
from di4c.errors import SpecError
from di4c_plugins.backbones.sinusoid import sinusoid
from di4c_plugins.backbones.truncated_logistic import TruncatedLogistic
from di4c_plugins.backbones.unet_blocks import ResidualBlock, group_norm
from di4c_plugins.backbones.unet_plan import Plan, Step, Walk

TIME_SCALE = 1000.0


class TauLDRUNet(TwoPartBackbone):
    """The U-Net: features [B·M, D, 2], the mean and log-scale of a truncated logistic on the S levels.

    shape: [channels, height, width] of the images, whose tokens are flattened in that order. channels: width of the
    first scale; multipliers: of the scales; res_blocks: a scale; attention_at: the scale with attention. lam_embed_dim:
    width of λ's embedding; 0 for a teacher, whose student gets λ layers of the time embedding's width. lam_scale: how
    far λ reaches at the start (published: 0, where the noise of training has to separate the components).
    """

    accepts = frozenset({"embedding", "start", "trunk"})
    replayable = True

    def __init__(
        self,
        num_positions: int,
        num_states: int,
        *,
        num_classes: int | None = None,
        shape: list[int],
        channels: int,
        multipliers: list[int],
        res_blocks: int,
        attention_at: int,
        dropout: float,
        rescale: bool = True,
        time_embed_dim: int | None = None,
        lam_embed_dim: int = 0,
        lam_scale: float = 1.0,
        symmetric_logistic: bool = False,
    ):
        super().__init__()
        _check_shape(num_positions, shape, multipliers)
        self.shape, self.num_states, self.num_classes = tuple(shape), num_states, num_classes
        self.time_embed_dim, self.lam_embed_dim, self.lam_scale = time_embed_dim or channels, 0, lam_scale
        self.plan = Plan(channels, tuple(multipliers), res_blocks, attention_at)
        self.width, self.depth, self.embedding_width = 2, self.plan.depth, lam_embed_dim or self.time_embed_dim
        time_width = 4 * self.time_embed_dim
        self.temb_modules = _two_layers(self.time_embed_dim)
        self.input_conv = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.downsampling_modules, self.middle_modules, self.upsampling_modules = self.plan.build(
            time_width=time_width, dropout=dropout, rescale=rescale
        )
        last = channels * multipliers[0]
        self.output_modules = nn.ModuleList([group_norm(last), nn.Conv2d(last, 2 * shape[0], 3, padding=1)])
        self.class_embedding = nn.Embedding(num_classes + 1, time_width) if num_classes else None
        self.readout = TruncatedLogistic(num_states, symmetric=symmetric_logistic)
        if lam_embed_dim:
            self._add_lam_layers(lam_embed_dim)

    def before(self, x_t: Tensor, t: Tensor, cond: Tensor | None, start: int) -> tuple[Tensor, ...]:
        """Features, time embedding, centred pixels, sinusoids of t, the skips; last the mean feature, where all of the way down is done."""
        weight = self.input_conv.weight
        x = rearrange(x_t, "b (c h w) -> b c h w", h=self.shape[1], w=self.shape[2])
        centred = 2 * x.to(weight.dtype) / (self.num_states - 1) - 1
        time = sinusoid(t * TIME_SCALE, self.time_embed_dim, sine_first=True, inclusive=True).to(weight.dtype)
        walk = Walk(self.input_conv(centred), self._time_embedding(time, cond), [])
        down, up = self._steps()
        walk.through(step for step in down if step.number < start)
        mean = [walk.h.mean(3).mean(2)] if start >= self.plan.depth_down else []
        walk.through(step for step in up if step.number < start)
        return walk.h, walk.time, centred, time, *walk.skips, *mean

    def after(self, trunk: tuple[Tensor, ...], context: Context | None) -> Tensor:
        """Features [B·M, D, 2], float32 at least."""
        h, embedded, centred, time, *skips = trunk
        start = self.depth if context is None else context.start
        mean = skips.pop() if start >= self.plan.depth_down else None
        lam = self._embedding(context)
        if context is not None:
            h, embedded, *skips = (repeat(x, "b ... -> (b m) ...", m=context.components) for x in (h, embedded, *skips))
        walk = Walk(h, embedded, skips)
        down, up = self._steps()
        if mean is None:
            early = None if lam is None else _mixed(self.tlam_mix, self.lemb_modules, lam, time)
            walk.through((step for step in down if step.number >= start), early)
            mean = walk.h.mean(3).mean(2)
        late = None if lam is None else _mixed(self.h_t_lam_mix, self.hlemb_modules, lam, time, mean)
        walk.through((step for step in up if step.number >= start), late)
        return self._moments(self.output_modules[1](nn.functional.silu(self.output_modules[0](walk.h))), centred)

    def _steps(self) -> tuple[list[Step], list[Step]]:
        """The way down; the middle and the way up."""
        parts = (self.downsampling_modules, self.middle_modules, self.upsampling_modules)
        down, middle, up = self.plan.steps(*parts)
        return down, middle + up

    def for_student(self) -> Backbone:
        """A trainable copy; λ layers are added if this network has none."""
        student = super().for_student()
        if not student.lam_embed_dim:
            student._add_lam_layers(student.embedding_width)
            student.to(self.input_conv.weight)
        return student

    def _add_lam_layers(self, dim: int) -> None:
        """The layers through which λ, embedded in `dim` numbers, enters."""
        self.lam_embed_dim = dim
        self.lemb_modules, self.hlemb_modules = _two_layers(dim), _two_layers(dim)
        middle = self.plan.channels * self.plan.multipliers[-1]
        self.tlam_mix = _no_bias(nn.Linear(dim + self.time_embed_dim, dim))
        self.h_t_lam_mix = _no_bias(nn.Linear(dim + self.time_embed_dim + middle, dim))
        for block in self.modules():
            if isinstance(block, ResidualBlock):
                block.add_lam_layer(4 * dim, self.lam_scale)

    def _embedding(self, context: Context | None) -> Tensor | None:
        """λ's embedding [B·M, lam_embed_dim], None where there is no λ."""
        if context is None or context.embedding is None:
            return None
        if not self.lam_embed_dim:
            raise SpecError(
                "backbone tauldr-unet: no λ layers; set lam_embed_dim, or take the copy that for_student() makes"
            )
        if not 0 <= context.start < self.depth:
            raise SpecError(
                f"backbone tauldr-unet: λ cannot enter at block {context.start} of {self.depth} (0 to {self.depth - 1})"
            )
        return context.embedding.to(self.tlam_mix.weight.dtype)

    def _time_embedding(self, time: Tensor, cond: Tensor | None) -> Tensor:
        """The embedding of t and the label, −1 or None standing for no label: [B, 4·time_embed_dim]."""
        embedded = _through(self.temb_modules, time)
        if self.class_embedding is None:
            return embedded
        label = torch.full((len(time),), -1, device=time.device) if cond is None else cond
        return embedded + self.class_embedding(label.masked_fill(label < 0, self.num_classes))

    def _moments(self, out: Tensor, centred: Tensor) -> Tensor:
        """(tanh(x + ·), log-scale) a pixel: [B·M, D, 2]."""
        wide = out if out.dtype == torch.float64 else out.float()
        mean, log_scale = wide.chunk(2, dim=1)
        return torch.stack([torch.tanh(_rows_like(centred, out).to(wide) + mean), log_scale], dim=-1).flatten(1, 3)


def _rows_like(x: Tensor, rows: Tensor) -> Tensor:
    """x [B, …] repeated to as many rows as `rows` [B·M, …] has, b major."""
    return x if len(x) == len(rows) else repeat(x, "b ... -> (b m) ...", m=len(rows) // len(x))


def _mixed(mix: nn.Linear, layers: nn.ModuleList, lam: Tensor, *beside: Tensor) -> Tensor:
    """λ's embedding mixed with the sinusoids of t, and maybe with the mean feature: [B·M, 4·lam_embed_dim]."""
    mixed = mix(torch.cat([lam, *(_rows_like(x, lam) for x in beside)], dim=1))
    return _through(layers, nn.functional.silu(mixed))


def _two_layers(width: int) -> nn.ModuleList:
    return nn.ModuleList([_no_bias(nn.Linear(width, 4 * width)), _no_bias(nn.Linear(4 * width, 4 * width))])


def _no_bias(layer: nn.Linear) -> nn.Linear:
    """The layer with its bias at 0."""
    nn.init.zeros_(layer.bias)
    return layer


def _through(layers: nn.ModuleList, h: Tensor) -> Tensor:
    return layers[1](nn.functional.silu(layers[0](h)))


def _check_shape(num_positions: int, shape: list[int], multipliers: list[int]) -> None:
    if len(shape) != 3 or math.prod(shape) != num_positions:
        raise SpecError(
            f"backbone tauldr-unet: shape {list(shape)} is not [channels, height, width] of {num_positions} positions"
        )
    divisor = 2 ** (len(multipliers) - 1)
    if shape[1] % divisor or shape[2] % divisor:
        raise SpecError(
            f"backbone tauldr-unet: {len(multipliers)} scales need a height and width divisible by {divisor}; "
            f"found {shape[1]} × {shape[2]}"
        )
