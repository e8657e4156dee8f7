"""Folders of data: residue, links, split folders and classes."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.folders import files_below
from di4c_plugins.datasets.image_folder import ImageFolder, ImageNet
from di4c_plugins.datasets.text import Text
from di4c_plugins.datasets.text_documents import Documents

RESIDUE = [
    ".ipynb_checkpoints", "__MACOSX", ".git", ".Trash-1000", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information",
    "#recycle", "__pycache__", "__macosx",
]  # fmt: skip


def images(folder: Path, *classes: str, number: int = 30) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / name / f"{i}.png")
    return folder


def labelled(folder: Path, **options) -> ImageFolder:
    return ImageFolder(path=str(folder), size=4, conditional=True, **options)


def counts(data: ImageFolder) -> tuple[int, int]:
    return len(data.split("train")), len(data.split("test"))


@pytest.mark.parametrize("residue", RESIDUE)
def test_trouble_01_residue_is_no_class(tmp_path, residue):
    images(tmp_path, "a", "b")
    images(tmp_path, residue, f"a/{residue}", number=1)
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "a" / name).write_bytes(b"residue")
    data = labelled(tmp_path)
    assert data.num_classes == 2 and sum(counts(data)) == 60


@pytest.mark.parametrize("residue", RESIDUE)
def test_trouble_01_residue_is_no_text(tmp_path, residue):
    (tmp_path / "a.txt").write_text("one text")
    (tmp_path / residue).mkdir()
    (tmp_path / residue / "a-checkpoint.txt").write_text("one text")
    (tmp_path / "._a.txt").write_bytes(b"\x00\x05\x16\x07")
    assert Documents(str(tmp_path)).files() == [tmp_path / "a.txt"]


def test_trouble_01_text_that_links_lead_to_is_read_once(tmp_path):
    """Twice, its held-out part would be trained on."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "2024.txt").write_text("one text")
    (tmp_path / "a" / "latest.txt").symlink_to("2024.txt")
    (tmp_path / "b").symlink_to("a")
    assert Documents(str(tmp_path)).files() == [tmp_path / "a" / "2024.txt"]


def test_a_hidden_folder_may_be_the_data_itself(tmp_path):
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "a.txt").write_text("text")
    assert Documents(str(tmp_path / ".data")).files() == [tmp_path / ".data" / "a.txt"]


def test_trouble_19_links_to_class_folders_are_followed(tmp_path):
    images(tmp_path / "store", "cats", "dogs")
    root = tmp_path / "data"
    root.mkdir()
    for name in ("cats", "dogs"):
        (root / name).symlink_to(tmp_path / "store" / name)
    plain, linked = labelled(tmp_path / "store"), labelled(root)
    assert linked.num_classes == 2 and counts(linked) == counts(plain)
    (root / "cats" / "loop").symlink_to(root)
    (root / "self").symlink_to(".")
    assert counts(labelled(root)) == counts(plain)
    (tmp_path / "whole").symlink_to(root)
    assert counts(labelled(tmp_path / "whole")) == counts(plain)


def test_trouble_19_a_link_that_leads_nowhere_is_named(tmp_path):
    images(tmp_path, "cats")
    (tmp_path / "cats" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png: a link to nothing"):
        labelled(tmp_path)


def test_linked_text_is_read_and_other_files_are_let_be(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").write_text("text")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "store")
    os.mkfifo(tmp_path / "data" / "pipe")
    assert Documents(str(tmp_path / "data")).files() == [tmp_path / "data" / "linked" / "a.txt"]
    assert files_below(tmp_path / "none", lambda file: True) == []


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("TRAIN", "VAL"), ("train", "Validation"), ("training", "testing")]
)
def test_trouble_29_split_folders_count_in_any_case(tmp_path, train, test):
    images(tmp_path / train, "cats", "dogs", number=5)
    images(tmp_path / test, "cats", "dogs", number=3)
    data = labelled(tmp_path)
    assert counts(data) == (10, 6) and data.num_classes == 2
    assert ImageNet(path=str(tmp_path), size=4, classes=2).num_classes == 2


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("held", ["test", "Val"])
def test_trouble_29_a_flat_test_folder_beside_classes_is_refused(tmp_path, conditional, held):
    images(tmp_path, "cats", "dogs", held)
    with pytest.raises(DataError, match=f"a folder {held} of held-out images and no folder train"):
        ImageFolder(path=str(tmp_path), size=4, conditional=conditional).split("train")


def test_trouble_29_names_that_differ_in_case_alone_are_refused(tmp_path):
    images(tmp_path / "train", "cats", number=2)
    images(tmp_path / "Train", "cats", number=2)
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system does not tell capitals from small letters")
    with pytest.raises(DataError, match="Train and train; keep one folder"):
        labelled(tmp_path)


def test_trouble_29_two_folders_of_one_name_are_no_class(tmp_path):
    images(tmp_path, "dog/good", "cat/good", "cat/bad")
    with pytest.raises(DataError, match=r"cat/good and dog/good would be one class 'good'"):
        labelled(tmp_path)
    assert sum(counts(ImageFolder(path=str(tmp_path), size=4))) == 90


def test_trouble_29_images_outside_class_folders_have_no_class(tmp_path):
    images(tmp_path, "cats", "dogs")
    images(tmp_path, ".", number=1)
    with pytest.raises(DataError, match=r"0\.png: lies in no class folder"):
        labelled(tmp_path)
    flat = images(tmp_path / "flat", "train", "test")
    with pytest.raises(DataError, match="lies in no class folder"):
        labelled(flat)
    assert counts(ImageFolder(path=str(flat), size=4)) == (30, 30)


def test_classes_may_lie_deeper_in_one_split(tmp_path):
    images(tmp_path / "train" / "images", "cats", "dogs", number=4)
    images(tmp_path / "test", "cats", "dogs", number=2)
    data = labelled(tmp_path)
    assert data.num_classes == 2 and counts(data) == (8, 4)


def test_trouble_29_text_in_split_folders_is_not_mixed(tmp_path):
    for name in ("Train", "Test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(f"the words of {name} " * 30)
    options = {"length": 8, "cache": str(tmp_path / "cache"), "normalise": "letters"}
    with pytest.raises(SpecError, match=r"test_path: .*Test"):
        Text(path=str(tmp_path), **options)
    (tmp_path / "Train").rename(tmp_path / "others")
    with pytest.raises(SpecError, match="a folder Test of held-out text"):
        Text(path=str(tmp_path), **options)
    (tmp_path / "others").rename(tmp_path / "Train")
    data = Text(path=str(tmp_path / "Train"), test_path=str(tmp_path / "Test"), **options)
    assert "train" in "".join(data.decode(data.split("train").batch(torch.arange(4)).x_0))
