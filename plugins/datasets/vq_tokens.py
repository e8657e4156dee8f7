"""Images as the codes of a tokenizer, encoded once and kept on disk."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from di4c.contracts import Batch, DataSource, Draws, ImageTokenizer, Split
from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.decoders import Codes
from di4c_plugins.datasets.token_cache import cache_root, cached_tokens
from di4c_plugins.tokenizers.pixels import images_of

CACHE = "~/.cache/di4c/vq"
READING = 3
"""Rises where the same files are read as other images, so that no codes of an earlier reading are used."""


class CodeSplit(Split):
    """Codes [n, V, D] of V views an image (the image, and its mirror image if V = 2) and labels [n] or None."""

    def __init__(self, codes: np.ndarray, labels: np.ndarray | None):
        self.codes = codes
        self.cond = None if labels is None else torch.from_numpy(labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.codes)

    def batch(self, indices: Tensor, draws: Draws | None = None) -> Batch:
        indices, views = indices.cpu(), self.codes.shape[1]
        view = 0 if draws is None else draws.integers(views).cpu().numpy()
        codes = torch.from_numpy(self.codes[indices.numpy(), view].astype(np.int64))
        return Batch(codes, None if self.cond is None else self.cond[indices])

    def labels(self) -> Tensor | None:
        return self.cond


class VQTokens(DataSource):
    """The codes of a tokenizer for the images of another data set.

    dataset: images as levels 0, …, S − 1 in the order (c, h, w). tokenizer: with its weights (`path`). flips: also
    keep each image's mirror image and draw one of the two in training. cache: the folder in which codes are kept,
    below a name made of the fingerprints of data and tokenizer (default: $DI4C_CACHE or ~/.cache/di4c/vq).
    batch_size: images encoded at a time. Raises SpecError where images and tokenizer differ in size.
    """

    def __init__(
        self,
        *,
        dataset: DataSource,
        tokenizer: ImageTokenizer,
        cache: str | None = None,
        flips: bool = False,
        batch_size: int = 64,
    ):
        channels, height, width = tokenizer.image_shape
        if channels * height * width != dataset.num_positions:
            raise SpecError(
                f"data.tokenizer takes images of {channels} × {height} × {width}, but data.dataset has "
                f"{dataset.num_positions} values an image; check its size and number of channels"
            )
        self.dataset, self.tokenizer = dataset, tokenizer.eval().requires_grad_(False)
        self.num_positions, self.num_states = tokenizer.num_positions, tokenizer.num_codes
        self.num_classes, self.label_names = dataset.num_classes, dataset.label_names
        self.cache = cache_root(cache, CACHE)
        self.flips, self.batch_size = flips, batch_size

    def split(self, name: str) -> Split:
        """The split of the same name; encodes it first if its codes are not in the cache."""
        source = self.dataset.split(name)
        views = 2 if self.flips and name == "train" else 1
        folder = self.cache / f"{self.fingerprint()}-{READING}" / name
        tokens = cached_tokens(folder, self._encoded(source, views), self.num_states, {"images": len(source)}).tokens
        if len(tokens) != len(source) * views * self.num_positions:
            raise DataError(f"{folder}: holds {len(tokens)} codes, expected {views} × {self.num_positions} for each of "
                            f"{len(source)} images; remove the folder, it will be written again")  # fmt: skip
        return CodeSplit(tokens.reshape(len(source), views, self.num_positions), self._labels(source, folder))

    def fingerprint(self) -> str:
        parts = f"{self.dataset.fingerprint()} {self._tokenizer_digest} {self.flips}"
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def decoder(self) -> Codes:
        return Codes(self.tokenizer, batch_size=self.batch_size)

    def pixels(self, x: Tensor, num_states: int | None = None) -> Tensor:
        """The decoded images as levels [n, C·H·W] int64 on the CPU, of the data set's number of states unless given."""
        return self.decoder().levels(x, num_states or self.dataset.num_states)

    @torch.no_grad()
    def _encoded(self, source: Split, views: int) -> Iterator[np.ndarray]:
        """Codes of the images in order, flat, a batch at a time; an image's mirror image follows it."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = self.tokenizer.to(device)
        for indices in torch.arange(len(source)).split(self.batch_size):
            images = images_of(source.batch(indices).x_0.to(device), network.image_shape, self.dataset.num_states)
            seen = [network.encode(images)] + ([network.encode(images.flip(-1))] if views == 2 else [])
            yield torch.stack(seen, dim=1).flatten().cpu().numpy()

    def _labels(self, source: Split, folder: Path) -> np.ndarray | None:
        """Labels of all images, kept beside the codes."""
        if self.num_classes is None:
            return None
        batches = torch.arange(len(source)).split(self.batch_size)
        parts = (source.batch(indices).cond.numpy() for indices in batches)
        kept = folder.with_name(f"{folder.name}-labels")
        labels = cached_tokens(kept, parts, self.num_classes, {}).tokens
        if len(labels) != len(source):
            told = f"{kept}: holds {len(labels)} labels for {len(source)} images"
            raise DataError(f"{told}; remove the folder, it will be written again")
        return labels

    @cached_property
    def _tokenizer_digest(self) -> str:
        return self.tokenizer.fingerprint()
