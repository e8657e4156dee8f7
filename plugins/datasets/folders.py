"""The one walk over folders of data: what is residue, which links are followed, which folders are splits."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from di4c.errors import DataError
from di4c_plugins.datasets.reading import check_plain, reading

RESIDUE = {
    "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found", "@eadir", "@recycle",
    "#recycle", "@recently-snapshot", "$recycle.bin", "recycler", "system volume information", "found.000",
}  # fmt: skip
"""What systems leave in folders, in small letters; hidden names (.ipynb_checkpoints, ._x) are residue as well."""
SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
"""The names of split folders in small letters, the preferred ones first."""


def files_below(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """The files in a folder and its folders whose name is `wanted`, sorted by their parts; [] if there is no such folder.

    Hidden and system residue below the folder is left out. Symbolic links are followed, but not back into a folder that
    they lie in. Raises DataError for a folder that cannot be listed and for a wanted name that is no plain file.
    """
    found = sorted((path, plain) for path, plain in _walk(folder, ()) if wanted(path))
    for path, plain in found:
        if not plain:
            check_plain(path)
    return [path for path, _ in found]


def is_residue(name: str) -> bool:
    """Whether a file or folder of this name is no data but what an editor or a system has left."""
    return name.startswith(".") or name.endswith("~") or name.lower() in RESIDUE


def split_folders(root: Path, names: Mapping[str, tuple[str, ...]] = SPLITS) -> dict[str, list[Path]]:
    """{"train": folders, "test": folders} of a data folder, whatever the case of their names, the preferred ones first.

    Raises DataError where two names differ in case alone.
    """
    found: dict[str, list[Path]] = {}
    with reading(root, "a folder"):
        entries = sorted(root / entry.name for entry in _entries(root) if entry.is_dir())
    for split, known in names.items():
        found[split] = []
        for name in known:
            alike = [entry for entry in entries if entry.name.lower() == name]
            if len(alike) > 1:
                raise DataError(
                    f"{root}: holds {' and '.join(entry.name for entry in alike)}; keep one folder '{name}'"
                )
            found[split] += alike
    return found


def _walk(folder: Path, inside: tuple[tuple[int, int], ...]) -> Iterator[tuple[Path, bool]]:
    """(path, whether it is a plain file) of all below a folder that is neither folder nor residue.

    inside: device and inode of the folders around it.
    """
    entries = _entries(folder)
    with reading(folder, "a folder"):
        found = folder.stat() if entries else None
    if found is None or (here := (found.st_dev, found.st_ino)) in inside:
        return
    for entry in entries:
        with reading(folder / entry.name, "a folder"):
            deeper, plain = entry.is_dir(), entry.is_file()
        if deeper:
            yield from _walk(folder / entry.name, (*inside, here))
        else:
            yield folder / entry.name, plain


def _entries(folder: Path) -> list[os.DirEntry]:
    """What lies in a folder, residue left out; [] if it is none."""
    with reading(folder, "a folder"):
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_residue(entry.name)]
