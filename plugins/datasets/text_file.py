"""The one opener of text: unpacked by what the file holds, decoded by its byte-order mark, cut into pieces of bounded size."""

import bz2
import codecs
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from di4c.errors import DataError
from di4c_plugins.datasets.reading import open_plain, reading

PIECE = 2**22
"""Characters of one file in memory at a time, about."""
REST = 2**20
"""How far a piece is read on to the end of its line; a longer line is cut before a word."""
LONGEST_WORD = 2**16
"""A longer word is cut where the piece ends."""
COMPRESSED = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd"}
FOREIGN = {
    b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"PAR1": "parquet without that ending", b"%PDF-": "a PDF",
}  # fmt: skip
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),  # before UTF-16: FF FE begins both
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def ending(file: Path) -> str:
    """The file's suffix in small letters, one of a compressed file left aside."""
    suffix = file.suffix.lower()
    return Path(file.stem).suffix.lower() if suffix in COMPRESSED else suffix


def open_text(file: Path) -> TextIO:
    """The file's text: UTF-8, or what its byte-order mark says, which is skipped; gz, bz2, xz and zst are unpacked.

    Raises DataError for what is no plain file, for another format, and for a compressed file's name on something else.
    """
    content = _unpacked(open_plain(file), file)
    head = content.peek(512)[:512]
    foreign = next((what for magic, what in FOREIGN.items() if head.startswith(magic)), None)
    if foreign or head[257:262] == b"ustar":
        raise DataError(f"{file}: {foreign or 'a tar archive'}, not text; unpack or rename it")
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), "utf-8")
    return io.TextIOWrapper(content, encoding=encoding)


def whole(text: TextIO) -> Iterator[tuple[str, bool, int]]:
    """(piece, whether the document ends with it, its first line) of a file that is one document: pieces end with a line."""
    held, row = "", 1
    while piece := text.read(PIECE):
        rest = text.readline(REST)
        piece, held = held + piece + rest, ""
        if _unfinished(rest, REST):
            piece, held = before_a_word(piece)
        yield piece, False, row
        row += piece.count("\n")
    yield held, True, row


def by_line(text: TextIO) -> Iterator[tuple[str, bool, int]]:
    """The same of a file whose lines are documents."""
    for part, ends, row in _lines(text):
        yield part.rstrip("\n"), ends, row


def by_blank_line(text: TextIO) -> Iterator[tuple[str, bool, int]]:
    """The same of a file whose documents lie between blank lines."""
    parts, size, first = [], 0, 1
    for line, ends, row in _lines(text):
        if line.strip() or not ends:
            first = first if parts else row
            parts.append(line)
            size += len(line)
        elif parts:
            yield "".join(parts).rstrip("\n"), True, first
            parts, size = [], 0
        if size >= PIECE:
            piece, held = before_a_word("".join(parts))
            yield piece, False, first
            first += piece.count("\n")
            parts, size = [held], len(held)
    if parts:
        yield "".join(parts).rstrip("\n"), True, first


def _lines(text: TextIO) -> Iterator[tuple[str, bool, int]]:
    """(part of a line, whether the line ends with it, its number): whole lines, unless they are longer than a piece."""
    held, row, unfinished = "", 1, False
    while part := text.readline(PIECE):
        unfinished = _unfinished(part, PIECE)
        part, held = before_a_word(held + part) if unfinished else (held + part, "")
        yield part, not unfinished, row
        row += not unfinished
    if unfinished:
        yield held, True, row


def before_a_word(text: str) -> tuple[str, str]:
    """The text cut before its last word, which keeps the space in front of it; uncut where no word begins near the end."""
    near = len(text) - LONGEST_WORD
    cut = max(text.rfind(space, max(near, 1)) for space in " \t\n")
    return (text, "") if cut < 0 else (text[:cut], text[cut:])


def vocabulary_lines(file: Path) -> list[str]:
    """The tokens of a vocab.txt: line n, counted from 0, is that of id n.

    Lines end at \\n or \\r\\n alone: U+2028, U+0085 and the like are tokens of some vocabularies.
    """
    with reading(file, "a vocabulary"), open_text(file) as text:
        content = text.buffer.read().decode(text.encoding)
    lines = content.removesuffix("\n").split("\n") if content else []
    return [line.removesuffix("\r") for line in lines]


def _unfinished(line: str, most: int) -> bool:
    """Whether a line goes on after `most` characters of it were asked for."""
    return len(line) == most and not line.endswith("\n")


def _unpacked(raw: io.BufferedReader, file: Path) -> io.BufferedReader:
    """The bytes of a file, unpacked if they are compressed."""
    head = raw.peek(8)
    kind = next((suffix for suffix, magic in COMPRESSED.items() if head.startswith(magic)), None)
    named = file.suffix.lower()
    if named in COMPRESSED and kind is None and head:
        raise DataError(f"{file}: not compressed as its name says; remove the ending {named}, or fetch the file again")
    if kind is None:
        return raw
    raw.close()
    if kind == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd"))
    opened: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return opened[kind](file)
