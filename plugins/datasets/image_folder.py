"""Any folder of images."""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from di4c.contracts import Draws
from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.folders import files_below, split_folders
from di4c_plugins.datasets.image_file import CENTRAL, Crop, read_square
from di4c_plugins.datasets.pixels import Images, PixelData, PixelSplit
from di4c_plugins.datasets.reading import reading

ENDINGS = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2",
    ".avif",
}  # fmt: skip


class FileSplit(PixelSplit):
    """Images that are read, cropped to a square and scaled when they are asked for."""

    def __init__(self, files: list[Path], labels: np.ndarray, data: "ImageFolder", *, flips: bool, crops: float):
        nothing = np.empty((0, *data.shape), dtype=np.uint8)
        conditional = data.num_classes is not None
        super().__init__(Images(nothing, labels), data.num_states, conditional=conditional, flips=flips)
        self.files, self.shape, self.crops = files, data.shape, crops

    def read(self, chosen: np.ndarray, draws: Draws | None) -> np.ndarray:
        crops = zip(chosen, self._crops(len(chosen), draws), strict=True)
        return np.stack([read_square(self.files[i], self.shape, crop) for i, crop in crops])

    def _crops(self, count: int, draws: Draws | None) -> list[Crop]:
        """A square for every image: the central one, or one at random whose side is at least `crops` of the largest's."""
        if draws is None or self.crops == 1:
            return [CENTRAL] * count
        share, x, y = draws.child("crops").uniform(3).cpu().unbind(1)
        return list(zip((self.crops + (1 - self.crops) * share).tolist(), x.tolist(), y.tolist(), strict=True))


class ImageFolder(PixelData):
    """The images below `path`: its folders train and test (or val), or else all, `held_out` of them kept for testing.

    size: side of the scaled central square; channels: 1 (grey) or 3. levels: S. conditional: the folders that images
    lie in are their classes, in alphabetical order.

    crops: training images are squares at random places, with sides of at least this share of the largest one's (1: central).

    The held-out images are chosen by their names, so adding images moves none. Split folders may be written in capitals.
    Raises DataError where it is unclear which images are held out, or which class an image has.
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
        crops: float = 1.0,
    ):
        if channels not in (1, 3) or not 0 < held_out < 1 or size < 1 or not 0 < crops <= 1:
            raise SpecError(
                f"data: channels must be 1 or 3 (is {channels}), held_out between 0 and 1 ({held_out}), "
                f"size above 0 ({size}), crops above 0 and at most 1 ({crops})"
            )
        self.crops = crops
        self.path, self.held_out = Path(path).expanduser(), held_out
        if conditional:
            self._check_classes()
        super().__init__(
            (channels, size, size), levels, num_labels=len(self._classes), conditional=conditional, flips=flips
        )
        self.label_names = self._classes if conditional else None

    def made_split(self, name: str) -> FileSplit:
        files, training = self._files[name], name == "train"
        labels = np.array([self._classes.index(file.parent.name) for file in files], dtype=np.int64)
        crops = self.crops if training else 1.0
        return FileSplit(files, labels, self, flips=self.flips and training, crops=crops)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.shape, self.num_states, self.num_classes)).encode())
        with reading(self.path, "a folder of images"):
            for name, files in self._files.items():
                digest.update(repr([(name, str(f.relative_to(self.path)), f.stat().st_size) for f in files]).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        found = {name: files for name, (_, files) in self._own_splits.items()}
        if not all(found.values()):
            every = images_below(self.path)
            if found["test"]:
                held, beside = self._own_splits["test"][0].name, len(every) - len(found["test"])
                raise DataError(
                    f"data.path {self.path}: a folder {held} of held-out images and no folder train, but {beside} images beside "
                    f"it; put those into a folder train, or rename {held} if it is a class"
                )
            found = {"train": [], "test": []}
            for file in every:
                found["test" if is_held_out(file.relative_to(self.path), self.held_out) else "train"].append(file)
        if not all(found.values()):
            mend = "expected a folder with images, or with folders train and test (or val)"
            if any(found.values()):
                mend = f"data.held_out {self.held_out} chose these by name; give more images, another held_out, or folders train and test (or val)"
            raise DataError(
                f"data.path {self.path}: {len(found['train'])} training and {len(found['test'])} held-out images; {mend}"
            )
        return found

    @cached_property
    def _own_splits(self) -> dict[str, tuple[Path, list[Path]]]:
        """{split: (its folder, the images in it)} of the folders that are named as splits, the first that holds any."""
        nothing: tuple[Path, list[Path]] = (self.path, [])
        return {
            name: next(((folder, files) for folder in folders if (files := images_below(folder))), nothing)
            for name, folders in split_folders(self.path).items()
        }

    def _check_classes(self) -> None:
        """DataError unless every image lies in a class folder, and every class of a split in one folder."""
        own = all(files for _, files in self._own_splits.values())
        for name, files in self._files.items():
            root, folders = self._own_splits[name][0] if own else self.path, {}
            for file in files:
                folder = folders.setdefault(file.parent.name, file.parent)
                if file.parent == root:
                    raise DataError(
                        f"{file}: lies in no class folder; sort it into one, or set data.conditional: false"
                    )
                if file.parent != folder:
                    raise DataError(
                        f"data.path {self.path}: the folders {folder.relative_to(root)} and {file.parent.relative_to(root)} "
                        f"would be one class {folder.name!r}; rename one of them"
                    )

    @cached_property
    def _classes(self) -> list[str]:
        return sorted({file.parent.name for files in self._files.values() for file in files})


class ImageNet(ImageFolder):
    """`path`/train/n01440764/….JPEG and `path`/val/n01440764/….JPEG, cropped to the central square of side `size`.

    The labels are the class folders in alphabetical order, which is the usual numbering of the 1000 classes. classes:
    how many there must be (fewer for a subset, whose labels then count its own folders). The official archive of
    validation images has no class folders; they must be sorted into them first.
    """

    def __init__(
        self, *, path: str, size: int = 256, classes: int = 1000, conditional: bool = True, flips: bool = False
    ):
        super().__init__(path=path, size=size, channels=3, levels=256, conditional=conditional, flips=flips)
        if len(self._classes) != classes:
            raise DataError(
                f"data.path {path}: images of {len(self._classes)} classes, expected {classes} folders each in train "
                "and val; sort validation images of one folder into class folders; a subset needs data.classes"
            )


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and its folders, in alphabetical order."""
    return files_below(folder, lambda file: file.suffix.lower() in ENDINGS)


def is_held_out(name: Path, share: float) -> bool:
    """Whether the image of this name is among the held-out ones; a hash of the name decides."""
    number = int.from_bytes(hashlib.sha256(name.as_posix().encode()).digest()[:8], "big")
    return number < share * 2**64
