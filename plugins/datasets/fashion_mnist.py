"""Fashion-MNIST: 70 000 grey images of clothes in ten classes (Xiao et al. 2017)."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from di4c.errors import DataError
from di4c_plugins.datasets.pixels import Images, PixelData, checked, hub_images, pooled
from di4c_plugins.datasets.reading import first_file, open_plain, reading

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
            images = hub_images(self.dataset, name, "image", "label", channels=1, labels=10)
        else:
            folder = Path(self.path).expanduser()
            pixels = idx_file(folder, f"{PREFIX[name]}-images-idx3-ubyte")
            labels = idx_file(folder, f"{PREFIX[name]}-labels-idx1-ubyte")
            images = Images(read_idx(pixels, (28, 28))[:, None], read_idx(labels, ()).astype(np.int64))
            checked(images, 10, f"{pixels} and {labels.name}")
        return Images(pooled(images.pixels, self.size), images.labels)


def idx_file(folder: Path, name: str) -> Path:
    """The file of that name in the folder, compressed or not."""
    expected = f"no {name}.gz; expected the four idx files of (Fashion-)MNIST"
    return first_file(folder, (f"{name}.gz", name), expected)


def read_idx(file: Path, item: tuple[int, ...]) -> np.ndarray:
    """The array [n, *item] in an idx file of bytes: magic 0 0 8 d, then d sizes, then the bytes. DataError for anything else.

    No more is read than the sizes say, however far a compressed file unpacks.
    """
    with reading(file, "an idx file", "fetch it again"), open_plain(file) as opened:
        source = gzip.GzipFile(fileobj=opened) if file.suffix == ".gz" else opened
        zero, kind, dimensions = struct.unpack(">HBB", source.read(4))
        shape = struct.unpack(f">{dimensions}I", source.read(4 * dimensions))
        if zero or kind != 8 or shape[1:] != item:
            raise DataError(f"{file}: not an idx file of bytes with sizes (n{''.join(f', {size}' for size in item)})")
        wanted = math.prod(shape)
        content = source.read(wanted + 1)
    if len(content) != wanted:
        raise DataError(f"{file}: truncated, or longer than it says (sizes {shape}); fetch it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
