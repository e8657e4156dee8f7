"""Images in memory as sequences of grey or colour levels: what the pixel data sets share."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from di4c.contracts import Batch, DataSource, Draws, Split
from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.decoders import Levels
from di4c_plugins.datasets.image_file import in_channels
from di4c_plugins.datasets.reading import reading, reason


@dataclass(frozen=True)
class Images:
    """pixels [n, C, H, W] uint8 and labels [n] int64."""

    pixels: np.ndarray
    labels: np.ndarray


class PixelSplit(Split):
    """Levels ⌊pixel·S/256⌋ of images in memory, flattened as (c, h, w); `flips` mirrors half of them, by draws."""

    def __init__(self, images: Images, num_states: int, *, conditional: bool, flips: bool):
        self.images, self.num_states, self.conditional, self.flips = images, num_states, conditional, flips

    def __len__(self) -> int:
        return len(self.images.labels)

    def batch(self, indices: Tensor, draws: Draws | None = None) -> Batch:
        chosen = indices.cpu().numpy()
        pixels = torch.from_numpy(self.read(chosen, draws))
        if self.flips and draws is not None:
            mirrored = (draws.uniform() < 0.5).cpu()
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
        cond = torch.from_numpy(self.images.labels[chosen]) if self.conditional else None
        return Batch(levels(pixels, self.num_states).flatten(1), cond)

    def read(self, chosen: np.ndarray, draws: Draws | None) -> np.ndarray:
        """The pixels of the images of these numbers: [n, C, H, W] uint8."""
        return self.images.pixels[chosen]

    def labels(self) -> Tensor | None:
        return torch.from_numpy(self.images.labels) if self.conditional else None


class PixelData(DataSource):
    """Base of image data sets that fit in memory; a subclass reads the images of a split.

    shape: (C, H, W). num_states: levels S of a pixel, at most 256. conditional: whether examples carry their labels.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_states: int,
        *,
        num_labels: int,
        conditional: bool = False,
        flips: bool = False,
    ):
        if not 2 <= num_states <= 256:
            raise SpecError(f"data.levels is {num_states}; a pixel has 2 to 256 levels")
        self.shape, self.num_states, self.flips = shape, num_states, flips
        self.num_positions = int(np.prod(shape))
        self.num_classes = num_labels if conditional else None
        self._splits: dict[str, PixelSplit] = {}

    def read(self, name: str) -> Images:
        """The images of "train" or "test", in a fixed order."""
        raise NotImplementedError

    def split(self, name: str) -> PixelSplit:
        if name not in ("train", "test"):
            raise DataError(f"data: no split {name!r}; the splits are 'train' and 'test'")
        if name not in self._splits:
            self._splits[name] = self.made_split(name)
        return self._splits[name]

    def made_split(self, name: str) -> PixelSplit:
        """The split, made when it is first asked for."""
        conditional, flips = self.num_classes is not None, self.flips and name == "train"
        return PixelSplit(self.read(name), self.num_states, conditional=conditional, flips=flips)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.shape, self.num_states, self.num_classes)).encode())
        for name in ("train", "test"):
            images = self.split(name).images
            digest.update(np.ascontiguousarray(images.pixels).tobytes())
            digest.update(images.labels.tobytes())
        return digest.hexdigest()[:16]

    def decoder(self) -> Levels:
        return Levels(self.shape, self.num_states)


def levels(pixels: Tensor, num_states: int) -> Tensor:
    """⌊pixel·S/256⌋ of 0, …, 255: int64, equally many pixel values a level if S divides 256."""
    return pixels.long() * num_states // 256


def pooled(pixels: np.ndarray, side: int) -> np.ndarray:
    """Square images [n, C, H, H] shrunk to `side` by means of blocks: uint8. SpecError if the side does not divide."""
    from_side = pixels.shape[-1]
    if side == from_side:
        return pixels
    if side < 1 or from_side % side:
        divisors = ", ".join(str(d) for d in range(from_side, 3, -1) if from_side % d == 0)
        raise SpecError(f"data.size is {side}; means of blocks give {divisors}")
    block = from_side // side
    shape = (*pixels.shape[:2], side, block, side, block)
    parts = (part.reshape(-1, *shape[1:]).mean((3, 5)) for part in _in_parts(pixels))
    return np.concatenate([np.floor(part + 0.5).astype(np.uint8) for part in parts])


def hub_images(dataset: str, split: str, image: str, label: str, *, channels: int, labels: int) -> Images:
    """The images of a hub data set's split, through `datasets`. DataError if it cannot be had or read."""
    try:
        import datasets

        rows = datasets.load_dataset(dataset, split=split)
    except Exception as error:
        raise DataError(
            f"data: the hub did not give {dataset!r} ({reason(error)}); data.path names a local folder instead"
        ) from error
    with reading(f"{dataset} ({split})", "images"):
        pixels = [
            np.asarray(in_channels(row[image], channels, f"{dataset} ({split}) row {i}")) for i, row in enumerate(rows)
        ]
        stacked = np.stack(pixels)
        stacked = stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2)
        return checked(Images(np.ascontiguousarray(stacked), np.asarray(rows[label], dtype=np.int64)), labels, dataset)


def checked(images: Images, labels: int, source: object) -> Images:
    """The images, if they are bytes and each has one of the labels 0, …, labels − 1; else DataError."""
    if images.pixels.dtype != np.uint8 or not len(images.pixels) or images.labels.shape != images.pixels.shape[:1]:
        raise DataError(
            f"{source}: {len(images.pixels)} images of type {images.pixels.dtype} and {len(images.labels)} labels; expected "
            "images of bytes, a label each"
        )
    if images.labels.min() < 0 or images.labels.max() >= labels:
        raise DataError(f"{source}: labels {images.labels.min()} to {images.labels.max()}; expected 0 to {labels - 1}")
    return images


def _in_parts(pixels: np.ndarray, size: int = 8192) -> Iterator[np.ndarray]:
    return (pixels[start : start + size] for start in range(0, len(pixels), size))
