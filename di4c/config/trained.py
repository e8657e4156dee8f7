"""`teacher.run`: a run of this project as teacher. A pretrained one gives options and weights, a distilled one its student."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from di4c.engine.exported import export_config
from di4c.errors import CheckpointError, SpecError
from di4c.paths import near, user_path


@dataclass(frozen=True)
class TrainedRun:
    """The export of a run: its folder, and the spec that it carries, which rebuilds the architecture."""

    run: Path
    folder: Path
    spec: dict

    @property
    def is_student(self) -> bool:
        return self.spec.get("task") == "distill"


def trained_entry(entry: Mapping) -> tuple[dict, TrainedRun | None]:
    """(the teacher's entry without `run`, the run or None).

    Of a pretraining run the entry's missing options are filled in from the run's own spec. Raises CheckpointError where
    there is no export, SpecError where a pretraining run trained another kind of teacher.
    """
    entry = dict(entry)
    run = entry.pop("run", None)
    if run is None:
        return entry, None
    trained = trained_run(run_folder(run, "teacher.run"), "teacher.run")
    if trained.is_student:
        return entry, trained
    teacher = trained.spec["teacher"]
    if teacher.get("name") != entry["name"]:
        raise SpecError(f"teacher.name: {entry['name']!r}, but {run} trained a {teacher.get('name')!r}; name that one")
    return teacher | entry, trained


def run_folder(run: object, key: str) -> Path:
    """The folder of a run, as the value of a spec's key. SpecError for what is no path."""
    if not isinstance(run, str | Path) or not str(run):
        raise SpecError(f"{key}: expected the folder of a run, found {run!r}")
    return user_path(run)


def trained_run(run: Path, key: str) -> TrainedRun:
    """The export in a run's folder, or the export that the folder is. Raises CheckpointError that names the key."""
    folder = _export_of(run, key)
    spec = dict(export_config(folder)["spec"])
    if not isinstance(spec.get("teacher"), dict):
        raise CheckpointError(
            f"{folder / 'config.json'}: its spec has no teacher; {key} names a run of `pretrain` or `distill`"
        )
    return TrainedRun(run, folder, spec)


def _export_of(path: Path, key: str) -> Path:
    for folder in (path / "export", path):
        if (folder / "model.safetensors").is_file():
            return folder
    what = "teacher" if key.startswith("teacher") else "student"
    raise CheckpointError(
        f"{key}: no model.safetensors in {path} or {path}/export; train the {what} first, or name its run{near(path)}"
    )
