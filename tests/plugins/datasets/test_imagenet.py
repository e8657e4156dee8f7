"""ImageNet's folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from di4c.errors import DataError
from di4c.testing import check_dataset
from di4c_plugins.datasets.image_folder import ImageNet

CLASSES = ("n02", "n01", "n03")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, number in (("train", 3), ("val", 2)):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{name}_{i}.JPEG")
    return tmp_path


def test_labels_count_the_class_folders_in_alphabetical_order(folder):
    data = ImageNet(path=str(folder), size=16, classes=3)
    check_dataset(data)
    assert (data.num_positions, data.num_states, data.num_classes) == (3 * 16 * 16, 256, 3)
    assert len(data.split("train")) == 9 and len(data.split("test")) == 6
    assert data.split("test").batch(torch.arange(6)).cond.tolist() == [0, 0, 1, 1, 2, 2]


def test_missing_classes_are_an_error(folder):
    with pytest.raises(DataError, match="3 classes, expected 1000"):
        ImageNet(path=str(folder))
