"""Any folder of images."""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from di4c.contracts import Batch, Draws, Split
from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.pixels import Images, PixelData, PixelSplit

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
HELD_OUT = {"train": ("train",), "test": ("test", "val", "valid", "validation")}


class FileSplit(Split):
    """Images that are read, cropped to their central square and scaled when they are asked for."""

    def __init__(self, files: list[Path], labels: np.ndarray, data: "ImageFolder", *, flips: bool):
        self.files, self.labels, self.data, self.flips = files, labels, data, flips

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Tensor, draws: Draws | None = None) -> Batch:
        chosen = indices.tolist()
        pixels = np.stack([read_image(self.files[index], self.data.shape) for index in chosen])
        conditional = self.data.num_classes is not None
        split = PixelSplit(
            Images(pixels, self.labels[chosen]), self.data.num_states, conditional=conditional, flips=self.flips
        )
        return split.batch(torch.arange(len(chosen)), draws)


class ImageFolder(PixelData):
    """The images below `path`: its folders train and test (or val), or else all, `held_out` of them kept for testing.

    size: side of the scaled central square; channels: 1 (grey) or 3. levels: S. conditional: the folders that images
    lie in are their classes, in alphabetical order. The held-out images are chosen by their names, so adding images
    moves none.
    """

    def __init__(
        self,
        *,
        path: str,
        size: int,
        channels: int = 3,
        levels: int = 256,
        conditional: bool = False,
        held_out: float = 0.1,
        flips: bool = False,
    ):
        if channels not in (1, 3) or not 0 < held_out < 1 or size < 1:
            raise SpecError(
                f"data: channels must be 1 or 3 (is {channels}), held_out between 0 and 1 ({held_out}), "
                f"size above 0 ({size})"
            )
        self.path, self.held_out = Path(path).expanduser(), held_out
        self._files_of: dict[str, FileSplit] = {}
        super().__init__(
            (channels, size, size), levels, num_labels=len(self._classes), conditional=conditional, flips=flips
        )

    def split(self, name: str) -> FileSplit:
        if name not in HELD_OUT:
            raise DataError(f"data: no split {name!r}; the splits are 'train' and 'test'")
        if name not in self._files_of:
            files = self._files[name]
            labels = np.array([self._classes.index(file.parent.name) for file in files], dtype=np.int64)
            self._files_of[name] = FileSplit(files, labels, self, flips=self.flips and name == "train")
        return self._files_of[name]

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.shape, self.num_states, self.num_classes)).encode())
        for name, files in self._files.items():
            digest.update(repr([(name, str(f.relative_to(self.path)), f.stat().st_size) for f in files]).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        found = {name: self._below(*folders) for name, folders in HELD_OUT.items()}
        if not all(found.values()):
            every = images_below(self.path)
            found = {"train": [], "test": []}
            for file in every:
                found["test" if is_held_out(file.relative_to(self.path), self.held_out) else "train"].append(file)
        if not all(found.values()):
            raise DataError(
                f"data.path {self.path}: {len(found['train'])} training and {len(found['test'])} held-out images; "
                "expected a folder with images, or with folders train and test (or val)"
            )
        return found

    def _below(self, *folders: str) -> list[Path]:
        return next((files for folder in folders if (files := images_below(self.path / folder))), [])

    @cached_property
    def _classes(self) -> list[str]:
        return sorted({file.parent.name for files in self._files.values() for file in files})


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and its folders, in alphabetical order."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())


def is_held_out(name: Path, share: float) -> bool:
    """Whether the image of this name is among the held-out ones; a hash of the name decides."""
    number = int.from_bytes(hashlib.sha256(name.as_posix().encode()).digest()[:8], "big")
    return number < share * 2**64


def read_image(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The central square scaled to the shape: [C, H, W] uint8. DataError if the file is no image."""
    channels, height, width = shape
    try:
        with Image.open(file) as image:
            colour = image.convert("L" if channels == 1 else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{file}: cannot be read as an image ({error})") from error
    side = min(colour.size)
    left, top = (colour.width - side) // 2, (colour.height - side) // 2
    scaled = colour.resize((width, height), Image.Resampling.BOX if side >= width else Image.Resampling.BICUBIC,
                           box=(left, top, left + side, top + side))  # fmt: skip
    pixels = np.asarray(scaled)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
