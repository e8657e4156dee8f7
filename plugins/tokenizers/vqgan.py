"""VQGAN's encoder, codebook and decoder (Esser et al. 2021), and where their weights come from."""

from dataclasses import asdict, dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from di4c.contracts import ImageTokenizer, strict_load
from di4c.errors import SpecError
from di4c_plugins.backbones.unet_blocks import Downsample, Upsample
from di4c_plugins.tokenizers.blocks import Level, Middle, group_norm
from di4c_plugins.tokenizers.checkpoints import recorded_options, tokenizer_state

REASONS = {"quantize.embedding": "num_codes or embed_dim (n_embed, embed_dim in model.yaml) is not the file's"}


@dataclass(frozen=True)
class Sizes:
    """The network's, by their names in ddconfig: what encoder and decoder share."""

    ch: int
    ch_mult: list[int]
    num_res_blocks: int
    attn_resolutions: list[int]
    z_channels: int
    dropout: float

    def level(self, width: int, factor: int, side: int, more_blocks: int = 0) -> Level:
        """The blocks at a scale of images with that side, `ch`·factor wide at their end."""
        return Level(
            width, self.ch * factor, self.num_res_blocks + more_blocks,
            attend=side in self.attn_resolutions, dropout=self.dropout,
        )  # fmt: skip


class Encoder(nn.Module):
    """Images [B, C, H, W] → latents [B, z, H/2^(n−1), W/2^(n−1)] for n = len(ch_mult) scales."""

    def __init__(self, image_shape: tuple[int, int, int], sizes: Sizes):
        super().__init__()
        self.conv_in = nn.Conv2d(image_shape[0], sizes.ch, 3, padding=1)
        self.down = nn.ModuleList()
        width, side = sizes.ch, image_shape[1]
        for i, factor in enumerate(sizes.ch_mult):
            level = sizes.level(width, factor, side)
            width = sizes.ch * factor
            if i < len(sizes.ch_mult) - 1:
                level.downsample = Downsample(width)
                side //= 2
            self.down.append(level)
        self.mid = Middle(width, dropout=sizes.dropout)
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, sizes.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        h = self.conv_in(images)
        for level in self.down:
            h = level(h)
        return self.conv_out(nn.functional.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latents → images, each scale with one block more than in the encoder; `up` counts from the finest scale."""

    def __init__(self, image_shape: tuple[int, int, int], sizes: Sizes):
        super().__init__()
        width, side = sizes.ch * sizes.ch_mult[-1], image_shape[1] // 2 ** (len(sizes.ch_mult) - 1)
        self.conv_in = nn.Conv2d(sizes.z_channels, width, 3, padding=1)
        self.mid = Middle(width, dropout=sizes.dropout)
        levels = []
        for i, factor in reversed(list(enumerate(sizes.ch_mult))):
            level = sizes.level(width, factor, side, more_blocks=1)
            width = sizes.ch * factor
            if i > 0:
                level.upsample = Upsample(width)
                side *= 2
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, image_shape[0], 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        h = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(nn.functional.silu(self.norm_out(h)))


class CodeTable(nn.Module):
    """The K code vectors, weight [K, e]: a buffer, since training moves them by averages and not by gradients."""

    def __init__(self, num_codes: int, width: int):
        super().__init__()
        self.register_buffer("weight", torch.empty(num_codes, width).uniform_(-1 / num_codes, 1 / num_codes))

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors [..., e] of codes [...]."""
        return self.weight[codes]


class Quantiser(nn.Module):
    """Nearest code vectors."""

    def __init__(self, num_codes: int, width: int):
        super().__init__()
        self.embedding = CodeTable(num_codes, width)

    def forward(self, latents: Tensor) -> Tensor:
        """The codes nearest in squared distance: [B, h, w] int64, from latents [B, e, h, w]; in float32, under autocast too."""
        flat = rearrange(latents, "b e h w -> (b h w) e").float()
        table = self.embedding.weight.float()
        with torch.autocast(latents.device.type, enabled=False):
            distance = flat.square().sum(1, keepdim=True) + table.square().sum(1) - 2 * flat @ table.T
        return distance.argmin(1).view(len(latents), *latents.shape[2:])


class VQGAN(ImageTokenizer):
    """Images in [−1, 1] ↔ codes on a grid of side image_size / 2^(n−1), n = len(ch_mult).

    Options are the published model.yaml's (ddconfig, n_embed, embed_dim). `path` gives weights: the folder of a run
    or export of `task: tokenizer`, a folder with last.ckpt and model.yaml, or the checkpoint file itself; the options
    may then be left out where the folder records them.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        ch: int,
        ch_mult: list[int],
        num_res_blocks: int,
        z_channels: int,
        num_codes: int,
        embed_dim: int,
        attn_resolutions: list[int] | None = None,
        dropout: float = 0.0,
        path: str | None = None,
    ):
        super().__init__()
        factor = 2 ** (len(ch_mult) - 1)
        if image_size % factor:
            raise SpecError(f"tokenizer vqgan: image_size {image_size} is not a multiple of 2^(scales − 1) = {factor}")
        self.image_shape = (channels, image_size, image_size)
        self.side = image_size // factor
        self.num_codes, self.num_positions = num_codes, self.side**2
        sizes = Sizes(ch, list(ch_mult), num_res_blocks, attn_resolutions or [], z_channels, dropout)
        self.options = asdict(sizes) | {
            "image_size": image_size, "channels": channels, "num_codes": num_codes, "embed_dim": embed_dim,
        }  # fmt: skip
        self.encoder, self.decoder = Encoder(self.image_shape, sizes), Decoder(self.image_shape, sizes)
        self.quantize = Quantiser(num_codes, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)
        if path is not None:
            strict_load(self, tokenizer_state(path), path, REASONS)

    def latents(self, images: Tensor) -> Tensor:
        """What is quantised: [B, e, h, w]."""
        return self.quant_conv(self.encoder(images))

    def images(self, quantised: Tensor) -> Tensor:
        """Images of quantised latents [B, e, h, w]: [B, C, H, W], not clipped."""
        return self.decoder(self.post_quant_conv(quantised))

    def encode(self, images: Tensor) -> Tensor:
        return self.quantize(self.latents(images)).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        vectors = self.quantize.embedding(codes)
        return self.images(rearrange(vectors, "b (h w) e -> b e h w", h=self.side))

    @staticmethod
    def resolved_entry(entry: dict) -> dict:
        """The entry with the options that `path` records, where the entry does not state its own."""
        return {**recorded_options(entry["path"]), **entry} if entry.get("path") else entry
