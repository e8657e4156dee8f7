"""Images as levels, which data sets hold, and as pixel values, which networks take."""

import torch
from einops import rearrange
from torch import Tensor


def images_of(x_0: Tensor, image_shape: tuple[int, int, int], num_states: int) -> Tensor:
    """Pixel values [B, C, H, W] in [−1, 1] of levels x_0 [B, C·H·W] in {0, …, S − 1}: 2x/(S − 1) − 1."""
    _, height, width = image_shape
    return rearrange(x_0, "b (c h w) -> b c h w", h=height, w=width).float() * (2 / (num_states - 1)) - 1


def levels_of(images: Tensor, num_states: int) -> Tensor:
    """The nearest levels [B, C·H·W] int64 of pixel values [B, C, H, W]; values outside [−1, 1] are clipped."""
    return ((images.clamp(-1, 1) + 1) * ((num_states - 1) / 2)).round().to(torch.int64).flatten(1)
