"""The finished parts of a sweep on disk: what lets an interrupted one go on."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from di4c.config.eval_spec import MixtureSize
from di4c.errors import Di4CError
from di4c.files import replace_file


@dataclass(frozen=True)
class Cell:
    """One model, sampled once: what it is, and everything its result depends on.

    kind: "samples", or "likelihood" for what is measured without samples. settings: digests of the weights, of the data and of plugins' code,
    number of samples, batch size, metrics with their options: a change of any of them makes another cell.
    """

    kind: str
    model: str
    mixture_size: MixtureSize
    steps: int
    seed: int
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A file name that a person can read, made unique by a digest of all settings."""
        text = json.dumps(asdict(self) | {"settings": dict(self.settings)}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        mixture = "" if self.mixture_size is None else f"-{self.mixture_size}"
        return f"{self.model.replace('.', '_')}{mixture}-{self.steps}steps-seed{self.seed}-{self.kind}-{digest}"


@dataclass(frozen=True)
class Measurement:
    """What one cell gave; seconds: a sequence's share of each batch's sampling time; grid: a picture of its samples."""

    model: str
    mixture_size: MixtureSize
    steps: int
    seed: int
    nfe: float
    seconds: list[float]
    metrics: dict[str, float]
    higher_is_better: dict[str, bool | None] = field(default_factory=dict)
    grid: Path | None = None


class CellStore:
    """Results in FOLDER/*.json, each written in one move: a file that exists is complete."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def find(self, cell: Cell) -> dict[str, Any] | None:
        """The stored result, or None if the cell is still to be done."""
        path = self._path(cell)
        return json.loads(path.read_text(encoding="utf-8"))["result"] if path.exists() else None

    def save(self, cell: Cell, result: Mapping[str, Any]) -> None:
        text = json.dumps({"cell": asdict(cell), "result": dict(result)}, indent=1, default=str)
        write_atomically(self._path(cell), text)

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.key}.json"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write (no space, no permission) into a Di4CError that names the path."""
    try:
        yield
    except OSError as error:
        told = f"cannot write {path}: {error.strerror or error}. What was finished before is kept"
        raise Di4CError(f"{told}; free some space or choose another folder, and run it again") from error


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Writes the file in one move, so that nobody sees a part of it and an earlier one survives a failure; returns path."""
    with writing(path):
        replace_file(path, content)
    return path
