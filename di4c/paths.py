"""Paths that a user gives, and names that become paths: each is understood in one place."""

import difflib
import os
from pathlib import Path

from di4c.errors import SpecError

LONGEST_NAME = 255
LONGEST_PATH = 4095
"""Bytes that file systems take."""


def user_path(given: str | os.PathLike[str]) -> Path:
    """The path that a user gave, with ~ or ~NAME at its start as that home; ./~ is a folder that is called so.

    Raises SpecError where no file can have such a path: it is empty or too long, holds a zero byte, or names an unknown home.
    """
    text = os.fspath(given)
    if not text:
        raise SpecError("expected a path, found an empty text")
    _refuse_impossible(text)
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError as error:
        name = Path(text).parts[0]
        raise SpecError(
            f"{text!r}: there is no home for {name}; a folder of that name is written as ./{name}"
        ) from error
    return Path.cwd() / path if str(path).startswith("~") else path  # or it would be read as a home from now on


def real_path(path: Path) -> Path:
    """The absolute path with links followed; in a loop of links as far as they lead."""
    return Path(os.path.realpath(path))


def near(path: str | Path) -> str:
    """ "; did you mean runs/digits-teacher?" for a path that is not there, by the names beside its first missing part; else ""."""
    path = Path(path)
    there = next((above for above in path.parents if os.path.isdir(above)), None)
    if there is None or os.path.lexists(path):
        return ""
    missing, *rest = path.relative_to(there).parts
    try:
        found = difflib.get_close_matches(missing, os.listdir(there), n=2, cutoff=0.7)
    except OSError:
        return ""
    told = [str(there / name / Path(*rest)) for name in found]
    told = [name for name in told if os.path.exists(name)]
    return f"; did you mean {' or '.join(told)}?" if told else ""


def with_ending(path: str | Path, ending: str) -> Path:
    """The path with an ending such as ".png" added, unless it has it: two paths stay two files, whatever their dots."""
    path = Path(path)
    return path if path.suffix.lower() == ending else path.with_name(path.name + ending)


def is_plain_name(name: str) -> bool:
    """Whether a name can be that of a file inside a folder: no separator, not hidden, of a length that leaves room for endings."""
    return (
        bool(name)
        and Path(name).name == name
        and not name.startswith(".")
        and name.isprintable()
        and "\\" not in name
        and len(name.encode()) <= 100
    )


def _refuse_impossible(text: str) -> None:
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise SpecError(f"{text!r}: no path can hold the character {text[error.start]!r}") from error
    if b"\0" in encoded:
        raise SpecError(f"{text!r}: no path can hold a zero byte")
    if len(encoded) > LONGEST_PATH or max(map(len, encoded.split(b"/"))) > LONGEST_NAME:
        raise SpecError(f"{text[:60]!r}…: a path has at most {LONGEST_PATH} bytes, each name in it {LONGEST_NAME}")
