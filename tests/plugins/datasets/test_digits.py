import numpy as np
import pytest
import torch
from PIL import Image

from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.digits import Digits, stratified


def test_split_sizes_and_values():
    data = Digits()
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (1197, 600)
    batch = train.batch(torch.arange(1197))
    assert batch.x_0.shape == (1197, 64) and batch.x_0.dtype == torch.int64
    assert batch.x_0.min() == 0 and batch.x_0.max() == data.num_states - 1
    assert batch.cond.min() == 0 and batch.cond.max() == data.num_classes - 1


def test_split_is_stratified_and_disjoint():
    data = Digits()
    train, test = (data.split(name).batch(torch.arange(len(data.split(name)))) for name in ("train", "test"))
    share = test.cond.bincount() / (test.cond.bincount() + train.cond.bincount())
    assert (share - 600 / 1797).abs().max() < 1 / 170  # one image of a class of about 180
    # the source has no exact duplicates across classes' images at this resolution, hence disjoint sets of rows
    seen = {tuple(row) for row in train.x_0.tolist()}
    assert not seen & {tuple(row) for row in test.x_0.tolist()}


def test_split_seed_and_fingerprint():
    assert Digits().fingerprint() == Digits().fingerprint()
    assert Digits(split_seed=1).fingerprint() != Digits().fingerprint()


def test_stratified_takes_the_exact_number():
    labels = np.array([0] * 7 + [1] * 5 + [2] * 2)
    for num in range(len(labels) + 1):
        assert stratified(labels, num, seed=3).sum() == num


def test_unconditional_has_no_labels():
    data = Digits(conditional=False)
    assert data.num_classes is None
    assert data.split("train").batch(torch.arange(3)).cond is None


def test_unknown_split_names_the_splits():
    with pytest.raises(DataError, match="'train' and 'test'"):
        Digits().split("valid")


def test_save_grid_draws_dark_ink_in_class_rows(tmp_path):
    data = Digits()
    x = torch.zeros(20, 64, dtype=torch.int64)
    x[0] = 16
    path = data.save_grid(x, tmp_path / "grid.png", torch.arange(20) % 2)
    picture = np.asarray(Image.open(path).convert("L"))
    assert path.suffix == ".png"
    assert picture.shape[1] > picture.shape[0]  # two rows of ten
    assert (picture == 0).sum() == 40 * 40  # the one black image, 8 × 8 pixels enlarged fivefold


def test_images_have_no_prompts():
    with pytest.raises(SpecError, match="Digits has no prompts"):
        Digits().prompt(prefix="a")
