"""Fashion-MNIST: 70 000 grey images of clothes in ten classes (Xiao et al. 2017)."""

import gzip
import struct
from pathlib import Path

import numpy as np

from di4c.errors import DataError
from di4c_plugins.datasets.pixels import Images, PixelData, hub_images, pooled

PREFIX = {"train": "train", "test": "t10k"}


class FashionMNIST(PixelData):
    """60 000 training and 10 000 held-out images, from a folder of idx files or from the hub.

    path: the folder of train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and their t10k fellows (.gz or not);
    without it, the hub's `dataset`. size: 28, or 14, 7 or 4 by the mean of blocks. levels: S. flips: mirror half of the
    images in training. Any data set in the same files (MNIST, EMNIST digits) is read as well.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        dataset: str = "zalando-datasets/fashion_mnist",
        size: int = 28,
        levels: int = 256,
        conditional: bool = False,
        flips: bool = False,
    ):
        super().__init__((1, size, size), levels, num_labels=10, conditional=conditional, flips=flips)
        self.path, self.dataset, self.size = path, dataset, size

    def read(self, name: str) -> Images:
        if self.path is None:
            images = hub_images(self.dataset, name, "image", "label")
        else:
            folder = Path(self.path).expanduser()
            pixels = read_idx(idx_file(folder, f"{PREFIX[name]}-images-idx3-ubyte"))[:, None]
            images = Images(pixels, read_idx(idx_file(folder, f"{PREFIX[name]}-labels-idx1-ubyte")).astype(np.int64))
        if len(images.pixels) != len(images.labels):
            raise DataError(f"data.path {self.path}: {len(images.pixels)} images and {len(images.labels)} labels")
        return Images(pooled(images.pixels, self.size), images.labels)


def idx_file(folder: Path, name: str) -> Path:
    """The file of that name in the folder, compressed or not."""
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            return file
    raise DataError(f"data.path {folder}: no {name}.gz; expected the four idx files of (Fashion-)MNIST")


def read_idx(file: Path) -> np.ndarray:
    """The array in an idx file of bytes: magic 0 0 8 n, then n sizes, then the bytes. DataError for anything else."""
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        zero, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{file}: not an idx file, or truncated ({error})") from error
    if zero or kind != 8 or values.size != int(np.prod(shape)):
        raise DataError(f"{file}: not an idx file of bytes, or truncated ({values.size} bytes for the sizes {shape})")
    return values.reshape(shape)
