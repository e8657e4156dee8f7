"""Images as grids of codes."""

import hashlib
from abc import abstractmethod

from torch import Tensor, nn


class ImageTokenizer(nn.Module):
    """A network that turns images into codes and codes into images: what task `tokenizer` trains, and data of codes encode with.

    image_shape: (C, H, W). num_codes: K. num_positions: D, the cells of the code grid in raster order. options: plain keyword
    arguments that build it again without reading weights, which lets its decoder travel in exports; None if it keeps none.
    """

    image_shape: tuple[int, int, int]
    num_codes: int
    num_positions: int
    options: dict | None = None

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Codes [B, D] int64 in {0, …, K − 1} of images [B, C, H, W] in [−1, 1]."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Images [B, C, H, W], about in [−1, 1], of codes [B, D]."""

    def fingerprint(self) -> str:
        """A short digest of the weights: what token caches are kept under."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
        return digest.hexdigest()[:16]

    @staticmethod
    def resolved_entry(entry: dict) -> dict:
        """The spec entry, completed before construction by what it points to (a run's own spec, say)."""
        return entry
