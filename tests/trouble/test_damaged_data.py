"""Every reader of data meets every damage: what it can still read, or one line that names the file."""

import gzip
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from di4c.contracts import DataSource, ImageTokenizer
from di4c.errors import DataError, Di4CError
from di4c.testing import check_dataset
from di4c_plugins.datasets.cifar10 import CIFAR10
from di4c_plugins.datasets.fashion_mnist import FashionMNIST
from di4c_plugins.datasets.image_folder import ImageFolder, ImageNet
from di4c_plugins.datasets.text import Text
from di4c_plugins.datasets.text_encoding import Subwords, load_tokenizer
from di4c_plugins.datasets.text_file import vocabulary_lines
from di4c_plugins.datasets.vq_tokens import VQTokens
from di4c_plugins.processes.absorbing import Absorbing
from tests.trouble.damage import damage, damages, outcome
from tests.trouble.test_text_files import PACKERS
from tests.trouble.test_tokens import byte_level

WORDS = "the ships of the sea went home, all of them.\n"


class Reader(NamedTuple):
    """file: what is damaged; read: reads all that it is part of; told: what an error may name."""

    file: Path
    read: Callable[[], Any]
    told: tuple[str, ...]


def everything(make: Callable[[], DataSource]) -> Callable[[], None]:
    """Makes the data set and checks its contract, which reads both splits."""

    def read() -> None:
        data = make()
        check_dataset(data, Absorbing(data.num_states))

    return read


def image_folder(suffix: str, kind: str = "L"):
    def make(folder: Path) -> Reader:
        for split in ("train", "val"):
            for name in ("a", "b"):
                (folder / split / name).mkdir(parents=True)
                pixels = (np.arange(64).reshape(8, 8) * 3).astype(np.uint8)
                Image.fromarray(pixels).convert(kind).save(folder / split / name / f"x{suffix}")
        if suffix == ".JPEG":
            told = ("x.JPEG", folder.name)
            return Reader(
                folder / "val/b/x.JPEG", everything(lambda: ImageNet(path=str(folder), size=4, classes=2)), told
            )
        options = {"path": str(folder), "size": 4, "conditional": True}
        return Reader(
            folder / "train/a" / f"x{suffix}", everything(lambda: ImageFolder(**options)), (f"x{suffix}", folder.name)
        )

    return make


def plain(name: str, content: bytes, **options):
    def make(folder: Path) -> Reader:
        file = folder / "corpus" / name
        file.parent.mkdir()
        file.write_bytes(content)
        given = {"length": 4, "path": str(file), "cache": str(folder / "cache"), "held_out": 0.3, **options}
        return Reader(file, everything(lambda: Text(**given)), (name, "the text has", "holds no text"))

    return make


def packed(suffix: str):
    return plain(f"x.txt{suffix}", PACKERS[suffix](WORDS.encode() * 30))


def parquet(folder: Path) -> Reader:
    reader = plain("x.parquet", b"")(folder)
    pyarrow.parquet.write_table(pyarrow.table({"text": [WORDS] * 30}), reader.file)
    return reader


JSON_LINES = (json.dumps({"text": WORDS}) + "\n").encode() * 30


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def fashion(name: str):
    def make(folder: Path) -> Reader:
        for prefix in ("train", "t10k"):
            images = np.arange(784 * 4).reshape(4, 28, 28) % 251
            (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
            (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(4)))
        read = everything(lambda: FashionMNIST(path=str(folder), conditional=True))
        return Reader(folder / name, read, (name.split("-")[0],))

    return make


def cifar(suffix: str):
    def make(folder: Path) -> Reader:
        pixels, labels = (np.arange(4 * 3072).reshape(4, 3072) % 251).astype(np.uint8), [0, 1, 2, 9]
        for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
            records = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], pixels], axis=1).tobytes()
            content = records if suffix else pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2)
            (folder / f"{name}{suffix}").write_bytes(content)
        read = everything(lambda: CIFAR10(path=str(folder), conditional=True))
        return Reader(folder / f"data_batch_3{suffix}", read, ("data_batch_3",))

    return make


class Nibbles(ImageTokenizer):
    """Codes of 2 × 2 images: each pixel is one."""

    image_shape, num_positions, num_codes = (1, 2, 2), 4, 256

    def __init__(self):
        super().__init__()

    def encode(self, images):
        return ((images.flatten(1) + 1) * 127.5).round().long()

    def decode(self, codes):
        return codes.view(-1, 1, 2, 2) / 127.5 - 1

    def fingerprint(self):
        return "nibbles"


def vq_cache(name: str):
    def make(folder: Path) -> Reader:
        (folder / "images").mkdir()
        for i in range(20):
            Image.new("L", (2, 2), i).save(folder / "images" / f"{i}.png")
        images = ImageFolder(path=str(folder / "images"), size=2, channels=1)
        read = everything(lambda: VQTokens(dataset=images, tokenizer=Nibbles(), cache=str(folder / "cache")))
        read()
        (file,) = (folder / "cache").glob(f"*/train/{name}")
        return Reader(file, read, ("train",))

    return make


def text_cache(name: str):
    def make(folder: Path) -> Reader:
        reader = plain("x.txt", WORDS.encode() * 30)(folder)
        reader.read()
        (file,) = (folder / "cache").glob(name)
        return Reader(file, reader.read, (file.parent.name, file.name))

    return make


def tokenizer(name: str):
    def make(folder: Path) -> Reader:
        made = byte_level()
        if name == "tokenizer.json":
            made.save(str(folder / name))
        else:
            made.model.save(str(folder))
        return Reader(folder / name, lambda: Subwords(load_tokenizer(str(folder))).encode([WORDS]), (name, folder.name))

    return make


def vocabulary(folder: Path) -> Reader:
    (folder / "vocab.txt").write_text("[UNK]\n[MASK]\nthe\nsea\n")
    return Reader(folder / "vocab.txt", lambda: vocabulary_lines(folder / "vocab.txt"), ("vocab.txt",))


READERS: dict[str, Callable[[Path], Reader]] = {
    **{f"image {suffix}": image_folder(suffix) for suffix in (".png", ".jpg", ".gif", ".tif", ".bmp", ".webp", ".pgm")},
    "image .png of colours": image_folder(".png", "RGB"),
    "imagenet": image_folder(".JPEG", "RGB"),
    "plain text": plain("x.txt", WORDS.encode() * 30),
    "plain text, lines": plain("x.md", WORDS.encode() * 30, documents="line"),
    "plain text, tokens": plain("x.text", WORDS.encode() * 30, alphabet="\n abcdefghijklmnopqrstuvwxyz.,"),
    **{f"text {suffix}": packed(suffix) for suffix in PACKERS if suffix},
    "JSON lines": plain("x.jsonl", JSON_LINES),
    "JSON lines, packed": plain("x.ndjson.gz", gzip.compress(JSON_LINES)),
    "parquet": parquet,
    "fashion-mnist images": fashion("train-images-idx3-ubyte.gz"),
    "fashion-mnist labels": fashion("t10k-labels-idx1-ubyte"),
    "cifar10, python": cifar(""),
    "cifar10, binary": cifar(".bin"),
    "vq tokens": vq_cache("tokens.bin"),
    "vq tokens' description": vq_cache("about.json"),
    "token cache": text_cache("tokens-*/tokens.bin"),
    "token cache's description": text_cache("tokens-*/about.json"),
    "cached alphabet": text_cache("alphabet-*.json"),
    **{name: tokenizer(name) for name in ("tokenizer.json", "vocab.json", "merges.txt")},
    "vocab.txt": vocabulary,
}


@pytest.mark.parametrize("name", damages())
def test_damaged_data_are_read_right_or_refused_by_name(tmp_path, name):
    for number, (kind, make) in enumerate(READERS.items()):
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        reader = make(folder)
        damage(reader.file, name)
        try:
            outcome(reader.read, told=reader.told)
        except Exception as error:
            raise AssertionError(f"{kind}, damage {name!r}: {type(error).__name__}: {error}") from error


def test_sizes_that_no_machine_has_are_refused_by_name(tmp_path):
    reader = fashion("train-images-idx3-ubyte.gz")(tmp_path)
    reader.file.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 28, 28) + bytes(784)))
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        reader.read()
    (tmp_path / "text").mkdir()
    reader = text_cache("tokens-*/about.json")(tmp_path / "text")
    about = json.loads(reader.file.read_text())
    for length in (10**15, -1, 0.5, "7", None):
        reader.file.write_text(json.dumps({**about, "length": length}))
        with pytest.raises(DataError, match=reader.file.parent.name):
            reader.read()


@pytest.mark.parametrize("kind", READERS)
def test_the_undamaged_files_are_read(tmp_path, kind):
    make = READERS[kind]
    assert not isinstance(outcome(make(tmp_path).read, told=""), Di4CError)
