"""A long sequence of tokens on disk, written once and read by memory map."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from di4c.errors import DataError
from di4c.files import replace_file, replacing_folder
from di4c_plugins.datasets.reading import check_plain, open_plain, reading, reason
from di4c_plugins.datasets.text_documents import Piece
from di4c_plugins.datasets.text_encoding import Encoding, UnreadableText

PIECES_AT_A_TIME = 64
CHARACTERS_AT_A_TIME = 2**22
DTYPES = {name: np.dtype(name) for name in ("uint8", "uint16", "uint32")}
DIGEST = 16
VERIFIED = 2**28
"""Caches of at most as many bytes are compared with their digest when they are opened: a quarter of a second."""
DAMAGED = "remove the folder, it will be written again"
DEFAULT_FOLDER = "~/.cache/di4c/text"


@dataclass(frozen=True)
class TokenCache:
    """tokens: one dimension, memory-mapped; about: what was kept beside them, with the digest of the tokens."""

    tokens: np.ndarray
    about: dict

    @classmethod
    def open(cls, folder: Path) -> "TokenCache":
        """The cache in a folder. Raises DataError if it is damaged."""
        with reading(folder, "a token cache", DAMAGED):
            with open_plain(folder / "about.json") as file:
                about = json.loads(file.read())
            dtype, length = DTYPES[about["dtype"]], about["length"]
            check_plain(folder / "tokens.bin")
            if (folder / "tokens.bin").stat().st_size != length * dtype.itemsize or "digest" not in about:
                raise DataError(f"{folder}: a damaged token cache (tokens.bin has not its {length} tokens); {DAMAGED}")
            tokens = np.memmap(folder / "tokens.bin", dtype=dtype, mode="r", shape=(length,))
            if tokens.nbytes <= VERIFIED and _digest(tokens) != about["digest"]:
                raise DataError(f"{folder}: a damaged token cache (tokens.bin is not what was written); {DAMAGED}")
        return cls(tokens, about)


def cache_root(cache: str | None, default: str = DEFAULT_FOLDER) -> Path:
    """The folder of caches: the given one, $DI4C_CACHE, or one under the home folder."""
    chosen = cache or os.environ.get("DI4C_CACHE") or default
    with reading(f"data.cache: {chosen}", "a folder"):
        return Path(chosen).expanduser()


def cached_tokens(folder: Path, arrays: Iterable[np.ndarray], num_states: int, about: dict) -> TokenCache:
    """The cache in `folder`, written from `arrays` first if it is not there.

    Ranks and runs that come at the same time wait for the one that writes; a writer that is killed leaves no cache.
    Only one array at a time is in memory.
    """
    with _written_once(folder, folder / "about.json") as absent:
        if absent:
            _write(folder, arrays, num_states, about)
    return TokenCache.open(folder)


def cached_text(file: Path, make: Callable[[], str]) -> str:
    """The text that a JSON file of the cache holds, made and written first if it is not there."""
    with _written_once(file, file) as absent:
        if absent:
            replace_file(file, json.dumps(make()))
    with reading(file, "a cached alphabet", "remove it, it will be written again"), open_plain(file) as opened:
        text = json.loads(opened.read())
        if not isinstance(text, str) or not text:
            raise DataError(f"{file}: no cached alphabet; remove it, it will be written again")
    return text


@contextlib.contextmanager
def _written_once(path: Path, sign: Path) -> Iterator[bool]:
    """Whether `path`, which is there if `sign` is, must be written; then no other process writes it meanwhile."""
    from filelock import FileLock

    try:
        if os.path.lexists(sign):
            yield False
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            yield not os.path.lexists(sign)
    except (OSError, NotImplementedError) as error:  # filelock's word where a file system has no locks
        raise DataError(f"{path}: cannot write the cache ({reason(error)}); choose a folder with data.cache") from error


def _write(folder: Path, arrays: Iterable[np.ndarray], num_states: int, about: dict) -> None:
    with replacing_folder(folder) as unfinished:
        dtype = "uint8" if num_states <= 2**8 else "uint16" if num_states <= 2**16 else "uint32"
        length, digest = 0, hashlib.sha256()
        with open(unfinished / "tokens.bin", "wb") as file:
            for array in arrays:
                data = array.astype(dtype).tobytes()
                file.write(data)
                digest.update(data)
                length += len(array)
        kept = {**about, "dtype": dtype, "length": length, "digest": digest.hexdigest()[:DIGEST]}
        (unfinished / "about.json").write_text(json.dumps(kept))


def encoded(pieces: Iterable[Piece], encoding: Encoding, most: int | None, source: str) -> Iterator[np.ndarray]:
    """The tokens of the pieces, a separator after each document; `most` in all (None: all).

    Raises DataError with the place of a text that cannot be encoded, and where the source holds no text or none of it has a token.
    """
    left, read, anything = most, False, False
    for piece, ids in _with_tokens(pieces, encoding):
        array = np.asarray([*ids, encoding.separator] if piece.ends else ids, dtype=np.int64)[:left]
        read, anything = True, anything or bool((array != encoding.separator).any())
        yield array
        if left is not None:
            left -= len(array)
            if left == 0:
                break
    if not anything:
        raise DataError(f"{source}: {'nothing in its text has a token' if read else 'holds no text'}")


def _with_tokens(pieces: Iterable[Piece], encoding: Encoding) -> Iterator[tuple[Piece, list[int]]]:
    """Each piece with its tokens."""
    for batch in _batches(pieces):
        try:
            found = encoding.encode([piece.text for piece in batch])
        except UnreadableText as error:
            raise DataError(f"{batch[error.index].place(error.position)}: {error}") from error
        yield from zip(batch, found, strict=True)


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Some pieces at a time, not many characters in all."""
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.text)
        if len(batch) == PIECES_AT_A_TIME or size >= CHARACTERS_AT_A_TIME:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _digest(tokens: np.ndarray) -> str:
    return hashlib.sha256(tokens.data).hexdigest()[:DIGEST]
