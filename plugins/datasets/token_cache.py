"""A long sequence of tokens on disk, written once and read by memory map."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from di4c.errors import DataError

PIECES_AT_A_TIME = 64
DEFAULT_FOLDER = "~/.cache/di4c/text"


@dataclass(frozen=True)
class TokenCache:
    """tokens: one dimension, memory-mapped; about: what was kept beside them, with the digest of the tokens."""

    tokens: np.ndarray
    about: dict

    @classmethod
    def open(cls, folder: Path) -> "TokenCache":
        """The cache in a folder. Raises DataError if it is damaged."""
        try:
            about = json.loads((folder / "about.json").read_text())
            tokens = np.memmap(folder / "tokens.bin", dtype=about["dtype"], mode="r", shape=(about["length"],))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{folder}: a damaged token cache ({error}); remove the folder, it will be written again"
            ) from error
        return cls(tokens, about)


def cache_root(cache: str | None) -> Path:
    """The folder of caches: the given one, $DI4C_CACHE, or one under the home folder."""
    return Path(cache or os.environ.get("DI4C_CACHE") or DEFAULT_FOLDER).expanduser()


def cached_tokens(folder: Path, arrays: Iterable[np.ndarray], num_states: int, about: dict) -> TokenCache:
    """The cache in `folder`, written from `arrays` first if it is not there.

    Ranks and runs that come at the same time wait for the one that writes; a writer that is killed leaves no cache.
    Only one array at a time is in memory.
    """
    from filelock import FileLock

    if not (folder / "about.json").is_file():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not (folder / "about.json").is_file():
                    _write(folder, arrays, num_states, about)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot write the token cache ({error}); choose a folder with data.cache"
            ) from error
    return TokenCache.open(folder)


def _write(folder: Path, arrays: Iterable[np.ndarray], num_states: int, about: dict) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        dtype = "uint8" if num_states <= 2**8 else "uint16" if num_states <= 2**16 else "uint32"
        length, digest = 0, hashlib.sha256()
        with open(unfinished / "tokens.bin", "wb") as file:
            for array in arrays:
                data = array.astype(dtype).tobytes()
                file.write(data)
                digest.update(data)
                length += len(array)
        if length == 0:
            raise DataError(f"{folder.name}: the source holds no text")
        kept = {**about, "dtype": dtype, "length": length, "digest": digest.hexdigest()[:16]}
        (unfinished / "about.json").write_text(json.dumps(kept))
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def encoded(pieces: Iterable[tuple[str, bool]], encoding, most: int | None) -> Iterator[np.ndarray]:
    """The tokens of (text, whether a document ends), a separator after each document; `most` in all (None: all)."""
    left, pieces = most, iter(pieces)
    while batch := list(islice(pieces, PIECES_AT_A_TIME)):
        for ids, (_, ends) in zip(encoding.encode([text for text, _ in batch]), batch, strict=True):
            array = np.asarray([*ids, encoding.separator] if ends else ids, dtype=np.int64)[:left]
            yield array
            if left is not None:
                left -= len(array)
                if left == 0:
                    return
