"""Files that are whole or absent, and durable; needs no torch."""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from di4c.errors import CheckpointError


def write_bytes(path: Path, content: bytes) -> str:
    """Writes and syncs `content`; its sha256 in hex."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to, which takes its place at the end: a reader, or a crash, finds the old or the new one whole."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes and syncs a file as `replacing` does."""
    with replacing(path) as unfinished:
        write_bytes(unfinished, content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, which takes its place at the end; what a killed process left of an earlier one is removed."""
    made = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        yield made
        replace_folder(path, made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = (), *, header: bool = True) -> str:
    """The rows as comma-separated values: `columns`, then other keys in order of appearance; what a row lacks is empty."""
    rows = list(rows)
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_json(path: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of a file that a run recorded. Raises CheckpointError where it is none, or lacks an expected {key: type}."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        wrong = [key for key, kind in expected.items() if not isinstance(found[key], kind)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: damaged; expected a JSON object with {', '.join(expected)} ({error!r})"
        ) from error
    if wrong:
        raise CheckpointError(f"{path}: damaged; {', '.join(wrong)} is of another type than was recorded")
    return found


def replace_folder(path: Path, made: Path) -> None:
    """Puts the folder `made` in the place of `path`, which it lies beside; a crash leaves the old one or the new one, whole or aside."""
    if not path.exists():
        os.replace(made, path)
        return
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(path, old)
    os.replace(made, path)
    shutil.rmtree(old)


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Makes renames inside `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
