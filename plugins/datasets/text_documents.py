"""Documents of text, one at a time, from files, folders, parquet or a hub data set; a corpus need not fit in memory."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from di4c.errors import DataError

Division = Literal["file", "blank-line", "line"]
PLAIN = (".txt", ".md", ".text")
PIECE = 2**22  # characters of one file in memory at a time
ENDINGS = (*PLAIN, ".jsonl", ".parquet")


@dataclass(frozen=True)
class Documents:
    """Where documents lie. path: a file or folder; or else dataset, a name for the `datasets` library with its split.

    division: what a document is in a plain text file: the file, a part between blank lines, or a line. column: the
    field with the text in .jsonl, .parquet and hub data. Compressed files end in .gz as well.
    """

    path: str | None = None
    dataset: str | None = None
    configuration: str | None = None
    split: str = "train"
    column: str = "text"
    division: Division = "file"

    def __iter__(self) -> Iterator[tuple[str, bool]]:
        """(text, whether a document ends with it), in a fixed order; blank documents are left out.

        Only files that are one document come in several pieces, cut at line ends, so that memory stays bounded. Raises
        DataError for what is absent or cannot be read.
        """
        inside = False
        for text, ends in self._pieces():
            inside = inside or bool(text.strip())
            if inside:
                yield text, ends
            inside = inside and not ends

    def identity(self) -> list:
        """What changes with the source, without reading it: names, sizes and times of files, or the hub's name."""
        if self.path is None:
            return [self.dataset, self.configuration, self.split, self.column]
        stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files()]
        return [stats, self.column, self.division]

    def files(self) -> list[Path]:
        """The files under `path`, sorted by name."""
        root = Path(self.path).expanduser()
        if root.is_file():
            return [root]
        if not root.is_dir():
            raise DataError(f"data.path: {self.path}: no such file or folder")
        found = sorted(file for file in root.rglob("*") if file.is_file() and ending(file) in ENDINGS)
        if not found:
            raise DataError(
                f"data.path: {self.path} holds no file that ends in {', '.join(ENDINGS)} (or these with .gz)"
            )
        return found

    def _pieces(self) -> Iterator[tuple[str, bool]]:
        if self.path is None:
            yield from ((text, True) for text in self._from_hub())
            return
        for file in self.files():
            try:
                if self.division == "file" and ending(file) not in (".jsonl", ".parquet"):
                    yield from _whole_file(file)
                else:
                    yield from ((text, True) for text in self._from_file(file))
            except (OSError, UnicodeDecodeError, ValueError) as error:
                raise DataError(f"{file}: cannot be read as text ({type(error).__name__}: {error})") from error

    def _from_file(self, file: Path) -> Iterator[str]:
        if ending(file) == ".parquet":
            yield from self._from_parquet(file)
            return
        with opened(file) as lines:
            if ending(file) == ".jsonl":
                for number, line in enumerate(lines, 1):
                    yield self._field(json.loads(line), f"{file}:{number}")
            elif self.division == "line":
                yield from (line.rstrip("\n") for line in lines)
            else:
                yield from _paragraphs(lines)

    def _from_parquet(self, file: Path) -> Iterator[str]:
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.ParquetFile(file)
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"{file}: not a parquet file ({error})") from error
        if self.column not in table.schema_arrow.names:
            there = ", ".join(table.schema_arrow.names)
            raise DataError(f"{file}: no column '{self.column}'; there is {there}. Name the one with the text with data.column")
        for batch in table.iter_batches(batch_size=256, columns=[self.column]):
            yield from (text or "" for text in batch.column(0).to_pylist())

    def _from_hub(self) -> Iterator[str]:
        import datasets

        try:
            rows = datasets.load_dataset(self.dataset, self.configuration, split=self.split, streaming=True)
            for row in rows:
                yield self._field(row, f"{self.dataset} ({self.split})")
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else ""
            raise DataError(
                f"data.dataset: {self.dataset}: cannot be read ({type(error).__name__}: {reason})"
            ) from error

    def _field(self, row: object, where: str) -> str:
        if not isinstance(row, dict) or not isinstance(row.get(self.column), str):
            there = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise DataError(
                f"{where}: no text under '{self.column}'; there is {there}. Name the field with data.column"
            )
        return row[self.column]


def ending(file: Path) -> str:
    """The file's suffix, a .gz left aside."""
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def opened(file: Path) -> TextIO:
    """The file's text, decompressed if it ends in .gz."""
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else open(file, encoding="utf-8")


def _whole_file(file: Path) -> Iterator[tuple[str, bool]]:
    """A file as one document, in pieces that end with a line."""
    with opened(file) as lines:
        while piece := lines.read(PIECE):
            yield piece + lines.readline(), False
    yield "", True


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    """The parts between blank lines."""
    part: list[str] = []
    for line in lines:
        if line.strip():
            part.append(line)
        elif part:
            yield "".join(part).rstrip("\n")
            part = []
    if part:
        yield "".join(part).rstrip("\n")
