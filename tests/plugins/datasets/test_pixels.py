"""Pixel data sets, read from small files of the published layouts."""

import gzip
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from di4c.contracts import Draws
from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.cifar10 import CIFAR10
from di4c_plugins.datasets.fashion_mnist import FashionMNIST
from di4c_plugins.datasets.image_folder import ImageFolder


def idx(values):
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


@pytest.fixture
def fashion_folder(tmp_path):
    generator = np.random.default_rng(0)
    for prefix, n in (("train", 20), ("t10k", 6)):
        images = generator.integers(0, 256, (n, 28, 28))
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(n) % 10)))
    return tmp_path


def test_fashion_mnist_by_the_byte(fashion_folder):
    data = FashionMNIST(path=str(fashion_folder), conditional=True)
    assert (data.num_positions, data.num_states, data.num_classes) == (784, 256, 10)
    batch = data.split("test").batch(torch.tensor([5, 0]))
    want = np.random.default_rng(0)
    want.integers(0, 256, (20, 28, 28))
    images = want.integers(0, 256, (6, 28, 28))
    assert torch.equal(batch.x_0, torch.from_numpy(images[[5, 0]]).flatten(1))
    assert batch.cond.tolist() == [5, 0] and len(data.split("train")) == 20


def test_pooling_and_levels(fashion_folder):
    full = FashionMNIST(path=str(fashion_folder)).split("train").batch(torch.arange(20)).x_0.view(20, 28, 28)
    data = FashionMNIST(path=str(fashion_folder), size=14, levels=16)
    x = data.split("train").batch(torch.arange(20)).x_0.view(20, 14, 14)
    mean = full.view(20, 14, 2, 14, 2).double().mean((2, 4))
    assert torch.equal(x, ((mean + 0.5).floor() * 16 / 256).floor().long())
    assert data.num_positions == 196 and x.max() == 15
    with pytest.raises(SpecError, match="28, 14, 7, 4"):
        FashionMNIST(path=str(fashion_folder), size=10).split("train")
    with pytest.raises(SpecError, match="2 to 256"):
        FashionMNIST(path=str(fashion_folder), levels=300)


def test_flips_mirror_half_of_the_training_images_only(fashion_folder):
    data = FashionMNIST(path=str(fashion_folder), flips=True)
    train, indices = data.split("train"), torch.arange(20)
    plain = train.batch(indices).x_0.view(20, 28, 28)
    drawn = train.batch(indices, Draws(0, count=20)).x_0.view(20, 28, 28)
    mirrored = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(drawn, plain, strict=True)])
    assert torch.equal(drawn[~mirrored], plain[~mirrored]) and 3 < mirrored.sum() < 17
    part = train.batch(indices[7:9], Draws(0, first=7, count=2)).x_0.view(2, 28, 28)
    assert torch.equal(part, drawn[7:9])
    test = data.split("test")
    assert torch.equal(test.batch(torch.arange(6), Draws(0, count=6)).x_0, test.batch(torch.arange(6)).x_0)


def test_crops_are_squares_of_training_images_at_random(tmp_path):
    for i in range(12):
        shades = np.arange(24 * 32, dtype=np.int64).reshape(24, 32) * 255 // (24 * 32)
        Image.fromarray(shades.astype(np.uint8)).save(tmp_path / f"{i}.png")
    data = ImageFolder(path=str(tmp_path), size=8, channels=1, held_out=0.3, crops=0.5)
    train, indices = data.split("train"), torch.arange(len(data.split("train")))
    draws = Draws(0, count=len(indices))
    plain, drawn = train.batch(indices).x_0, train.batch(indices, draws).x_0
    assert len(drawn.unique(dim=0)) == len(indices) and len(plain.unique(dim=0)) == 1
    assert (drawn.amax(1) - drawn.amin(1) < plain.amax(1) - plain.amin(1)).any()  # a part of the shades
    assert torch.equal(train.batch(indices[2:4], draws.rows(2, 4)).x_0, drawn[2:4])
    test = data.split("test")
    assert torch.equal(test.batch(torch.arange(1), Draws(0, count=1)).x_0, test.batch(torch.arange(1)).x_0)
    whole = ImageFolder(path=str(tmp_path), size=8, channels=1, held_out=0.3)
    assert torch.equal(whole.split("train").batch(indices, draws).x_0, plain)
    assert whole.fingerprint() == data.fingerprint()
    for crops in (0, 1.5):
        with pytest.raises(SpecError, match="crops above 0"):
            ImageFolder(path=str(tmp_path), size=8, crops=crops)


def test_fingerprint_knows_data_and_options(fashion_folder):
    path = str(fashion_folder)
    prints = {FashionMNIST(path=path, size=size, levels=s).fingerprint() for size in (28, 14) for s in (16, 256)}
    assert len(prints) == 4
    assert FashionMNIST(path=path).fingerprint() == FashionMNIST(path=path).fingerprint()


def test_grid(fashion_folder, tmp_path):
    data = FashionMNIST(path=str(fashion_folder), size=7, levels=4)
    written = data.save_grid(torch.randint(4, (6, 49)), tmp_path / "grid")
    assert written.suffix == ".png" and Image.open(written).width > 49


def test_damaged_files_are_told(fashion_folder):
    images = fashion_folder / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(images.read_bytes())
    images.write_bytes(gzip.compress(content[:-5]))
    with pytest.raises(DataError, match="truncated"):
        FashionMNIST(path=str(fashion_folder)).split("train")
    images.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as an idx file"):
        FashionMNIST(path=str(fashion_folder)).split("train")
    images.unlink()
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        FashionMNIST(path=str(fashion_folder)).split("train")
    with pytest.raises(DataError, match="'train' and 'test'"):
        FashionMNIST(path=str(fashion_folder)).split("valid")


def cifar_batches():
    generator = np.random.default_rng(1)
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        yield name, generator.integers(0, 256, (4, 3072)).astype(np.uint8), [1, 9, 0, 3]


@pytest.mark.parametrize("version", ["py", "bin"])
def test_cifar_from_either_version(tmp_path, version):
    folder = tmp_path / f"cifar-10-batches-{version}"
    folder.mkdir()
    wanted = {}
    for name, data, labels in cifar_batches():
        wanted[name] = data
        if version == "py":
            (folder / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels}, protocol=2))
        else:
            records = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], data], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
    data = CIFAR10(path=str(tmp_path), conditional=True)
    assert (data.num_positions, data.num_states, data.shape) == (3072, 256, (3, 32, 32))
    batch = data.split("train").batch(torch.tensor([0, 7, 19]))
    assert torch.equal(batch.x_0[1], torch.from_numpy(wanted["data_batch_2"][3]).long())
    assert batch.cond.tolist() == [1, 3, 3] and len(data.split("test")) == 4


def test_cifar_pickles_execute_nothing(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("executed",))

    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Harmful(), b"labels": []}, protocol=2))
    with pytest.raises(DataError, match="print"):
        CIFAR10(path=str(tmp_path)).split("test")


def test_hub_data_go_through_datasets(monkeypatch):
    rows = [{"img": Image.fromarray(np.full((32, 32, 3), k, dtype=np.uint8)), "label": k} for k in range(3)]

    class Rows(list):
        def __getitem__(self, key):
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    asked = []
    fake = types.SimpleNamespace(load_dataset=lambda name, split: asked.append((name, split)) or Rows(rows))
    monkeypatch.setitem(sys.modules, "datasets", fake)
    batch = CIFAR10(conditional=True).split("test").batch(torch.tensor([2]))
    assert asked == [("uoft-cs/cifar10", "test")]
    assert batch.cond.item() == 2 and (batch.x_0 == 2).all()

    def refuse(name, split):
        raise ConnectionError("offline")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=refuse))
    with pytest.raises(DataError, match="data.path"):
        CIFAR10().split("train")


@pytest.fixture
def folder_of_images(tmp_path):
    for kind, colour in (("cats", 200), ("dogs", 50)):
        (tmp_path / kind).mkdir()
        for k in range(30):
            Image.new("RGB", (20, 10), (colour, k, 0)).save(tmp_path / kind / f"{k}.png")
    return tmp_path


def test_image_folder_with_classes(folder_of_images):
    data = ImageFolder(path=str(folder_of_images), size=4, conditional=True, levels=256)
    train, test = data.split("train"), data.split("test")
    assert data.num_classes == 2 and len(train) + len(test) == 60 and 1 <= len(test) <= 15
    batch = train.batch(torch.arange(len(train)))
    red = batch.x_0.view(-1, 3, 16)[:, 0]
    assert torch.equal(red[:, 0], torch.where(batch.cond == 0, 200, 50)) and (red == red[:, :1]).all()


def test_image_folder_with_its_own_splits(folder_of_images, tmp_path):
    root = tmp_path / "sets"
    for split, kind in (("train", "cats"), ("val", "dogs")):
        (root / split).mkdir(parents=True)
        (folder_of_images / kind).rename(root / split / kind)
    data = ImageFolder(path=str(root), size=8, channels=1, levels=16)
    assert len(data.split("train")) == len(data.split("test")) == 30
    assert data.split("test").batch(torch.tensor([3])).x_0.shape == (1, 64)
    assert data.num_classes is None


def test_held_out_images_stay_when_others_come(folder_of_images):
    before = {f.name for f in ImageFolder(path=str(folder_of_images), size=4).split("test").files}
    Image.new("RGB", (5, 5)).save(folder_of_images / "cats" / "new.png")
    after = {f.name for f in ImageFolder(path=str(folder_of_images), size=4).split("test").files}
    assert before <= after


def test_image_folder_mistakes(tmp_path):
    with pytest.raises(DataError, match="expected a folder with images"):
        ImageFolder(path=str(tmp_path / "none"), size=4)
    (tmp_path / "0.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="training and . held-out images; data.held_out 0.1 chose these by name"):
        ImageFolder(path=str(tmp_path), size=4).split("train")
    for k in range(40):
        (tmp_path / f"{k}.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="cannot be read as an image"):
        ImageFolder(path=str(tmp_path), size=4).split("train").batch(torch.tensor([0]))
