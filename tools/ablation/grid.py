"""A grid file → its runs, each with the spec it is trained by and the runs that it is made of.

judged: ngram_tv                  the metric named beforehand
seeds: [0, 1, 2]                  training seeds
eval: {steps: [1, 2, 4, 8]}       changes of the eval section, the same for every row
set: {train.batch_size: 128}      changes of every spec that is trained
rows:
  teacher: {spec: text-small-teacher, seeds: [0]}
  di4c: {runs: {teacher.run: teacher}, axes: {student.head.rank: [8, 32]}}
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from di4c.config.coerce import from_mapping
from di4c.config.shipped import spec_path
from di4c.config.spec import Spec, read_spec
from di4c.config.suggest import suggestion
from di4c.errors import SpecError
from di4c.paths import is_plain_name
from di4c.yaml_text import read_yaml


@dataclass(frozen=True)
class Row:
    """One line of the table: a spec, --spec if none is named, with changes; or a run that is trained already.

    set: {key of the spec: value}. runs: {key of the spec: row}, the key becomes the run folder of that row with the same seed, or of
    its only one. axes: {key of the spec: values}, the row once for each combination. seeds: training seeds, if not the grid's.
    eval: changes of the eval section for this row alone, e.g. its mixture_sizes.
    """

    spec: str | None = None
    run: Path | None = None
    set: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    axes: dict[str, list[Any]] = field(default_factory=dict)
    seeds: list[int] | None = None
    eval: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        made = [key for key in ("spec", "set", "runs", "axes", "seeds") if getattr(self, key)]
        if self.run is not None and made:
            raise SpecError(f"run: a run that is trained already; leave out {', '.join(made)}")


@dataclass(frozen=True)
class Grid:
    """What a grid file says. reference: the row that the others are compared with, the first one if none is named."""

    judged: str
    rows: dict[str, Row]
    seeds: list[int] = field(default_factory=lambda: [0])
    eval: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    about: str = ""


@dataclass(frozen=True)
class Trial:
    """One run of the grid: a row, one value of each of its axes, and a training seed (0 of a run that is there already).

    folder: of the run and of its evaluation. spec: what it is trained by; None for a run that is there already.
    needs: trials that must be trained before.
    """

    row: str
    axes: Mapping[str, Any]
    seed: int
    folder: Path
    run: Path
    spec: Spec | None
    eval: tuple[str, ...]
    needs: tuple["Trial", ...] = ()

    @property
    def name(self) -> str:
        """How the row is called in tables, e.g. "di4c, rank 8"."""
        return row_name(self.row, self.axes)

    @property
    def label(self) -> str:
        return self.name if self.spec is None else f"{self.name}, seed {self.seed}"

    @property
    def key(self) -> tuple[str, int]:
        return self.name, self.seed


def read_grid(path: Path) -> Grid:
    """The grid of a YAML file. Raises SpecError with the file and the key."""
    values = read_yaml(path)
    try:
        grid = from_mapping(Grid, values, "")
        _check(grid)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    return grid


def trials(grid: Grid, spec: str | None, file: Path, folder: Path, overrides: Sequence[str] = ()) -> list[Trial]:
    """Every run of the grid, those that others are made of before them. Raises SpecError where a spec cannot be.

    spec: of the rows that name none. file: the grid's, whose folder may hold specs. overrides: "KEY=VALUE" of every spec.
    """
    return _Expansion(grid, spec, file, folder, tuple(overrides)).all()


def row_name(row: str, axes: Mapping[str, Any]) -> str:
    """A row's name with the values of its axes."""
    return ", ".join([row, *(f"{key.rpartition('.')[2]} {_text(value)}" for key, value in axes.items())])


def assignments(changes: Mapping[str, Any]) -> list[str]:
    """{key: value} as "KEY=VALUE" texts of --set, whatever the values are."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


@dataclass(frozen=True)
class _Expansion:
    grid: Grid
    spec: str | None
    file: Path
    folder: Path
    overrides: tuple[str, ...]
    _made: dict[str, list[Trial]] = field(default_factory=dict)

    def all(self) -> list[Trial]:
        """The rows' trials, each row's after those of the rows that it refers to."""
        for name in self.grid.rows:
            self._visit(name, ())
        return [trial for made in self._made.values() for trial in made]

    def _visit(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise SpecError(f"{self.file}: rows.{name}.runs: is made of itself ({' ← '.join((*above, name))})")
        for other in self.grid.rows[name].runs.values():
            self._visit(other, (*above, name))
        if name not in self._made:
            self._made[name] = self._of(name)

    def _of(self, name: str) -> list[Trial]:
        row = self.grid.rows[name]
        seeds = [0] if row.run is not None else row.seeds or self.grid.seeds
        combinations = [dict(zip(row.axes, v, strict=True)) for v in itertools.product(*row.axes.values())]
        return [self._trial(name, row, axes, seed) for axes in combinations for seed in seeds]

    def _trial(self, name: str, row: Row, axes: Mapping[str, Any], seed: int) -> Trial:
        evaluated = tuple(assignments({f"eval.{key}": value for key, value in (self.grid.eval | row.eval).items()}))
        values = "".join(f"+{key.rpartition('.')[2]}={_text(value)}" for key, value in axes.items())
        folder = self.folder / f"{name}{values}" / f"seed-{seed}"
        if row.run is not None:
            return Trial(name, axes, seed, folder, row.run, None, evaluated)
        needs = {key: self._found(name, key, other, axes, seed) for key, other in row.runs.items()}
        changes = {**self.grid.set, **row.set, **axes, **{key: str(trial.run) for key, trial in needs.items()}}
        own = {"seed": seed, "train.run": str(folder / "run")}
        try:
            spec = read_spec(self._spec_file(row), [*assignments(changes), *self.overrides, *assignments(own)])
        except SpecError as error:
            raise SpecError(f"{self.file}: rows.{name}: {error}") from error
        return Trial(name, axes, seed, folder, folder / "run", spec, evaluated, tuple(needs.values()))

    def _found(self, name: str, key: str, other: str, axes: Mapping[str, Any], seed: int) -> Trial:
        """The run of another row with the same seed, or of its only one, and with the same values of the axes that both have."""
        fitting = [t for t in self._made[other] if all(axes[k] == v for k, v in t.axes.items() if k in axes)]
        fitting = [t for t in fitting if t.seed == seed] or fitting
        if len(fitting) == 1:
            return fitting[0]
        told = ", ".join(t.label for t in self._made[other])
        where = f"{self.file}: rows.{name}.runs.{key}"
        raise SpecError(f"{where}: not one run of {other!r} fits seed {seed}; it has {told}")

    def _spec_file(self, row: Row) -> Path:
        given = row.spec or self.spec
        if given is None:
            raise SpecError("spec: missing; name one here, or give --spec")
        beside = self.file.parent / given
        return beside if beside.is_file() else spec_path(given)


def _check(grid: Grid) -> None:
    if not grid.rows:
        raise SpecError("rows: none; a grid has at least one")
    if grid.reference is not None and grid.reference not in grid.rows:
        raise SpecError(f"reference: no row {grid.reference!r}.{suggestion(grid.reference, grid.rows, 'Rows')}")
    seeds_of = {"seeds": grid.seeds, **{f"rows.{name}.seeds": row.seeds for name, row in grid.rows.items()}}
    for where, seeds in seeds_of.items():
        if seeds is not None and (not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0):
            raise SpecError(f"{where}: expected different whole numbers ≥ 0, found {seeds}")
    for name, row in grid.rows.items():
        if not is_plain_name(name):
            told = "folders are called by the name, so it is letters without /, of at most 100 bytes"
            raise SpecError(f"rows.{name}: {told}")
        for key, values in row.axes.items():
            if not values:
                raise SpecError(f"rows.{name}.axes.{key}: no values")
        for key, other in row.runs.items():
            if other not in grid.rows:
                raise SpecError(f"rows.{name}.runs.{key}: no row {other!r}.{suggestion(other, grid.rows, 'Rows')}")


def _text(value: Any) -> str:
    return str(value).replace("/", "_")
