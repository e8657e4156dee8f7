"""`teacher.run`: any teacher may take its options and weights from a pretraining run of this project."""

import json
from collections.abc import Mapping
from pathlib import Path

from di4c.errors import CheckpointError, SpecError


def trained_entry(entry: Mapping) -> tuple[dict, Path | None]:
    """(the teacher's entry without `run`, its options filled in from the run's own spec; the export's folder or None).

    Options that the entry states win. Raises CheckpointError where there is no export, SpecError where the run trained
    another kind of teacher.
    """
    entry = dict(entry)
    run = entry.pop("run", None)
    if run is None:
        return entry, None
    folder = _export_of(Path(run))
    trained = _trained(folder)
    if trained.get("name") != entry["name"]:
        raise SpecError(f"teacher.name: {entry['name']!r}, but {run} trained a {trained.get('name')!r}; name that one")
    return trained | entry, folder


def _export_of(path: Path) -> Path:
    for folder in (path / "export", path):
        if (folder / "model.safetensors").is_file():
            return folder
    raise CheckpointError(
        f"teacher.run: no model.safetensors in {path} or {path}/export; train the teacher first, or name its run"
    )


def _trained(folder: Path) -> dict:
    """The teacher's entry in the spec that the export was trained with."""
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))["spec"]["teacher"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: not the configuration of an export ({error!r})") from error
