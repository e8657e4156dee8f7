"""Files that hold a model: read whole, or refused in one line that says which file and what is wrong with it."""

import json
import stat
from pathlib import Path
from typing import Any

from torch import Tensor

from di4c.errors import CheckpointError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
WEB_PAGE = (b"<!doctype html", b"<html")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError."""
    from safetensors.torch import load_file

    require_whole(path)
    try:
        return load_file(str(path))
    except Exception as error:  # the library's own error, or what a nonsensical header leads to
        told = f"cannot be read as safetensors; it is truncated, or of another format ({first_line(error)})"
        raise CheckpointError(f"{path}: {told}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises CheckpointError."""
    require_whole(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}; expected a mapping, {{…}}")
    return found


def require_whole(path: Path) -> None:
    """Raises CheckpointError for what is no file, or by its first bytes not the file that it should be."""
    fault = fault_of(path)
    if fault is not None:
        raise CheckpointError(f"{path}: {fault}")


def fault_of(path: Path) -> str | None:
    """What is wrong with a file that holds a model, whatever its format; None if nothing is seen."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return "is a folder; expected a file"
        if not stat.S_ISREG(mode):
            return "is no regular file"
        with open(path, "rb") as file:
            head = file.read(256)
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})"
    if not head:
        return "is empty"
    if head.startswith(LFS_POINTER):
        return "is a git-lfs pointer, not the file itself; fetch the file (git lfs pull)"
    if head.lstrip().lower().startswith(WEB_PAGE):
        return "is a web page, not the file itself; fetch the file again"
    return None


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
