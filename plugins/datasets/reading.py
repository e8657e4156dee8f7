"""Files that a user hands over: opened in one way, and what a library throws becomes one line that names the file."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from di4c.errors import DataError, Di4CError
from di4c.paths import near

LFS_POINTER = b"version https://git-lfs"
KINDS = {
    stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device", stat.S_ISBLK: "a device",
}  # fmt: skip


@contextlib.contextmanager
def reading(source: object, what: str, remedy: str = "") -> Iterator[None]:
    """Turns every exception of a library inside into a DataError: SOURCE: cannot be read as WHAT (reason); remedy.

    Libraries raise nearly anything on damaged files: OSError, SyntaxError, OverflowError, a bare Exception, MemoryError for
    sizes that a damaged head declares, and Rust's PanicException, which is no Exception. The project's errors pass.
    """
    try:
        yield
    except Di4CError:
        raise
    except BaseException as fault:
        if not isinstance(fault, Exception) and type(fault).__name__ != "PanicException":
            raise
        told = f"{source}: cannot be read as {what} ({reason(fault)})"
        raise DataError(f"{told}; {remedy}" if remedy else told) from fault


@contextlib.contextmanager
def named_by(key: str) -> Iterator[None]:
    """Puts the key of the spec that names a file in front of what is wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}: {error}") from error


def reason(fault: BaseException) -> str:
    """The exception's kind and the first line of what it says."""
    said = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
    return ": ".join(part for part in (type(fault).__name__, *said.strip().splitlines()[:1]) if part)


def check_plain(file: Path) -> None:
    """DataError unless the path leads to a plain file: reading a pipe would wait for ever, a device never end."""
    with reading(file, "a file"):
        try:
            mode = os.stat(file).st_mode
        except FileNotFoundError:
            raise DataError(
                f"{file}: {'a link to nothing' if file.is_symlink() else 'no such file or folder'}{near(file)}"
            ) from None
    for test, kind in KINDS.items():
        if test(mode):
            raise DataError(f"{file}: {kind}, not a file")


def first_file(folder: Path, names: Iterable[str], absent: str) -> Path:
    """The first file of these names in the folder of `data.path`. DataError in the words of `absent` for none."""
    with reading(f"data.path {folder}", "a folder"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise DataError(f"data.path {folder}: {absent}")


def open_plain(file: Path) -> BufferedReader:
    """The plain file, open for reading. DataError for anything else, and for a git-lfs pointer in the place of the data."""
    check_plain(file)
    with reading(file, "a file"):
        handle = open(file, "rb")  # noqa: SIM115 (the caller closes it)
    if handle.peek(len(LFS_POINTER)).startswith(LFS_POINTER):
        handle.close()
        raise DataError(f"{file}: a git-lfs pointer, not the data; fetch the file (git lfs pull)")
    return handle
