"""CIFAR-10: 60 000 colour images of 32 × 32 pixels in ten classes (Krizhevsky 2009)."""

import codecs
import pickle
from pathlib import Path

import numpy as np

from di4c.errors import DataError
from di4c_plugins.datasets.pixels import Images, PixelData, checked, hub_images, pooled
from di4c_plugins.datasets.reading import first_file, open_plain, reading

BATCHES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
RECORD = 1 + 3 * 32 * 32
UNPACKED = ("", "cifar-10-batches-py/", "cifar-10-batches-bin/")
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class CIFAR10(PixelData):
    """50 000 training and 10 000 held-out images, from a folder of batch files or from the hub.

    path: the folder of data_batch_1, …, test_batch of the python or of the binary version (.bin), or the folder above
    it; without it, the hub's `dataset`. size: 32, or 16 or 8 by the mean of blocks. levels: S. flips: mirror half of
    the images in training.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        dataset: str = "uoft-cs/cifar10",
        size: int = 32,
        levels: int = 256,
        conditional: bool = False,
        flips: bool = False,
    ):
        super().__init__((3, size, size), levels, num_labels=10, conditional=conditional, flips=flips)
        self.label_names = NAMES
        self.path, self.dataset, self.size = path, dataset, size

    def read(self, name: str) -> Images:
        if self.path is None:
            images = hub_images(self.dataset, name, "img", "label", channels=3, labels=10)
        else:
            parts = [read_batch(batch_file(Path(self.path).expanduser(), batch)) for batch in BATCHES[name]]
            images = Images(np.concatenate([p.pixels for p in parts]), np.concatenate([p.labels for p in parts]))
        return Images(pooled(images.pixels, self.size), images.labels)


def batch_file(folder: Path, name: str) -> Path:
    """The file of that name in the folder or in the one that the archives unpack to."""
    places = [parent + name + end for parent in UNPACKED for end in ("", ".bin")]
    expected = f"no {name} and no {name}.bin; expected CIFAR-10's python or binary version, unpacked"
    return first_file(folder, places, expected)


def read_batch(file: Path) -> Images:
    """One batch file: records of a label and 3072 bytes (.bin), or a pickle of arrays; nothing in it is executed."""
    with reading(file, "a batch of CIFAR-10", "fetch it again"), open_plain(file) as opened:
        if file.suffix == ".bin":
            content = opened.read()
            if not content or len(content) % RECORD:
                raise DataError(f"{file}: truncated ({len(content)} bytes are no multiple of {RECORD})")
            records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD)
            pixels, labels = records[:, 1:], records[:, 0]
        else:
            batch = ArraysOnly(opened, encoding="bytes").load()
            pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
        return checked(Images(pixels.reshape(-1, 3, 32, 32), labels.astype(np.int64)), 10, file)


class ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays in plain containers, and refuses everything else that a pickle can name."""

    allowed = {
        "_reconstruct": np.zeros(0).__reduce__()[0],
        "scalar": np.int64(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "encode": codecs.encode,
    }

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] not in ("numpy", "_codecs") or name not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self.allowed[name]
