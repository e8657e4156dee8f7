"""Documents of text, one at a time, from files, folders, parquet or a hub data set; a corpus need not fit in memory."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from di4c.errors import DataError
from di4c_plugins.datasets.folders import files_below, split_folders
from di4c_plugins.datasets.reading import check_plain, named_by, open_plain, reading
from di4c_plugins.datasets.text_file import by_blank_line, by_line, ending, open_text, whole

Division = Literal["file", "blank-line", "line"]
ROWS = (".jsonl", ".ndjson")
ENDINGS = (".txt", ".md", ".text", *ROWS, ".parquet")
LONGEST_ROW = 2**28
"""Characters of a JSON line; without a limit a file without line ends would be read whole."""


class Piece(NamedTuple):
    """A text, or a part of one; whether a document ends with it; where it stands: the source and its first line or row."""

    text: str
    ends: bool
    source: str
    row: int = 1
    counted: bool = True

    def place(self, position: int = 0) -> str:
        """SOURCE:ROW of a character; in a row's text every character has the row's number."""
        return f"{self.source}:{self.row + (self.text.count(chr(10), 0, position) if self.counted else 0)}"


@dataclass(frozen=True)
class Documents:
    """Where documents lie. path: a file or folder; or else dataset, a name for the `datasets` library with its split.

    division: what a document is in a plain text file: the file, a part between blank lines, or a line. column: the field
    with the text in .jsonl, .ndjson, .parquet and hub data; rows where it is null are left out. Endings count in any case;
    compressed files end in .gz, .bz2, .xz or .zst as well. A file that is named itself may be .json if it holds JSON lines.
    """

    path: str | None = None
    dataset: str | None = None
    configuration: str | None = None
    split: str = "train"
    column: str = "text"
    division: Division = "file"

    def __iter__(self) -> Iterator[tuple[str, bool]]:
        """(text, whether a document ends with it), as `pieces`."""
        return ((piece.text, piece.ends) for piece in self.pieces())

    def pieces(self) -> Iterator[Piece]:
        """The documents in a fixed order; blank ones are left out.

        Only text of plain files comes in several pieces, cut at line ends or, in lines of millions of characters, before a
        word, so that memory stays bounded. Raises DataError for what is absent or cannot be read.
        """
        inside = False
        for piece in self._pieces():
            inside = inside or bool(piece.text.strip())
            if inside:
                yield piece
            inside = inside and not piece.ends

    def identity(self) -> list:
        """What changes with the source, without reading it: names, sizes and times of files, or the hub's name."""
        if self.path is None:
            return [self.dataset, self.configuration, self.split, self.column]
        with reading(f"data.path: {self.path}", "text"):
            stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files()]
        return [stats, self.column, self.division]

    def named(self) -> str:
        """The key of the spec and what it says, for messages."""
        return f"data.dataset: {self.dataset} ({self.split})" if self.path is None else f"data.path: {self.path}"

    def files(self) -> list[Path]:
        """The files under `path`, sorted by name, one that links lead to counted once. DataError where there are none."""
        with reading(f"data.path: {self.path}", "a path"), named_by("data.path"):
            root = Path(self.path).expanduser()
            if not root.is_dir():
                check_plain(root)
                return [root]
        found = text_below(root)
        if not found:
            endings = ", ".join(ENDINGS)
            raise DataError(
                f"data.path: {self.path} holds no file that ends in {endings} (or these with .gz, .bz2, .xz, .zst)"
            )
        return sorted({file.resolve(): file for file in reversed(found)}.values())

    def own_splits(self) -> dict[str, Path | None]:
        """{"train": folder, "test": folder} of the folders that are named as splits and hold text; None where there is none."""
        if self.path is None:
            return {"train": None, "test": None}
        with reading(f"data.path: {self.path}", "a path"), named_by("data.path"):
            splits = split_folders(Path(self.path).expanduser())
        return {
            name: next((folder for folder in folders if text_below(folder)), None) for name, folders in splits.items()
        }

    def _pieces(self) -> Iterator[Piece]:
        if self.path is None:
            yield from self._fields(self._from_hub(), f"{self.dataset} ({self.split})")
            return
        for file in self.files():
            with reading(file, "text"):
                if ending(file) == ".parquet":
                    yield from self._fields(self._from_parquet(file), str(file))
                elif ending(file) in (*ROWS, ".json"):
                    yield from self._fields(self._from_json(file), str(file))
                else:
                    yield from self._from_plain(file)

    def _from_plain(self, file: Path) -> Iterator[Piece]:
        if ending(file) not in ENDINGS:
            _refuse_rows(file)
        with open_text(file) as text:
            parts = {"file": whole, "blank-line": by_blank_line, "line": by_line}[self.division](text)
            for part, ends, row in parts:
                if "\0" in part:
                    raise DataError(
                        f"{file}: holds zero bytes: no text, or text in an encoding without a byte-order mark"
                    )
                yield Piece(part, ends, str(file), row)

    def _fields(self, rows: Iterable[tuple[int, Any]], source: str) -> Iterator[Piece]:
        """The texts of numbered rows."""
        for number, row in rows:
            yield Piece(self._field(row, f"{source}:{number}"), True, source, number, counted=False)

    def _from_json(self, file: Path) -> Iterator[tuple[int, Any]]:
        with open_text(file) as text:
            for number, line in enumerate(iter(lambda: text.readline(LONGEST_ROW), ""), 1):
                if not line.strip():
                    continue
                with reading(f"{file}:{number}", "a JSON line", "each line is one JSON object"):
                    if len(line) == LONGEST_ROW:
                        raise DataError(
                            f"{file}:{number}: longer than {LONGEST_ROW} characters; one object a line is needed"
                        )
                    row = json.loads(line)
                yield number, row

    def _from_parquet(self, file: Path) -> Iterator[tuple[int, Any]]:
        import pyarrow.parquet

        row = 1
        open_plain(file).close()
        with reading(file, "parquet"):
            table = pyarrow.parquet.ParquetFile(file)
            self._check_column(table.schema_arrow, file)
            for batch in table.iter_batches(batch_size=256, columns=[self.column]):
                with reading(f"{file}:{row}", f"parquet (one of {len(batch)} rows from here)"):
                    texts = batch.column(0).to_pylist()
                yield from enumerate(({self.column: text} for text in texts), row)
                row += len(batch)

    def _check_column(self, schema: Any, file: Path) -> None:
        import pyarrow

        if self.column not in schema.names:
            there = ", ".join(schema.names)
            raise DataError(
                f"{file}: no column '{self.column}'; there is {there}. Name the one with the text with data.column"
            )
        kind = schema.field(self.column).type
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        if str(kind) not in ("string", "large_string", "string_view", "null"):
            raise DataError(
                f"{file}: column '{self.column}' holds {kind}, no text. Name the one with the text with data.column"
            )

    def _from_hub(self) -> Iterator[tuple[int, Any]]:
        with reading(f"data.dataset: {self.dataset}", "a data set of the hub"):
            import datasets

            rows = datasets.load_dataset(self.dataset, self.configuration, split=self.split, streaming=True)
            yield from enumerate(rows, 1)

    def _field(self, row: object, where: str) -> str:
        """The row's text; "" where it is null."""
        if not isinstance(row, dict):
            raise DataError(f"{where}: a {type(row).__name__}, not one object with a field '{self.column}'")
        if not isinstance(row.get(self.column, 0), str | None):
            wrong = (
                f"'{self.column}' holds a {type(row[self.column]).__name__}, no text"
                if self.column in row
                else f"no field '{self.column}'"
            )
            raise DataError(
                f"{where}: {wrong}; there is {', '.join(row)}. Name the field with the text with data.column"
            )
        text = row[self.column] or ""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: half a surrogate pair ({error.reason}) under '{self.column}': no text"
            ) from error
        return text


def text_below(folder: Path) -> list[Path]:
    """The files of text in a folder and its folders, sorted by name."""
    return files_below(folder, lambda file: ending(file) in ENDINGS)


def _refuse_rows(file: Path) -> None:
    """DataError for a table under a name that does not say so: as plain text, its syntax would be learnt."""
    if ending(file) in (".csv", ".tsv"):
        raise DataError(
            f"{file}: a table; convert it to .jsonl or .parquet, or name it .txt if the table itself is the text"
        )
    with open_text(file) as text:
        first = text.readline(LONGEST_ROW)
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return
    if isinstance(row, dict):
        raise DataError(f"{file}: holds JSON lines; name it .jsonl, or .txt if the JSON itself is the text")
