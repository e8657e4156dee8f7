"""A teacher made of a backbone and a parameterisation: what `task: pretrain` trains."""

import json
from pathlib import Path

from di4c_plugins.teachers.containers import read_file, strict_load

from di4c.contracts import Backbone, ForwardProcess, Parameterisation, Teacher
from di4c.errors import CheckpointError


class DenoiserTeacher(Teacher):
    """Any registered backbone under any parameterisation; `run` takes the weights from a pretraining run or export."""

    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        backbone: Backbone,
        parameterisation: Parameterisation,
        run: str | None = None,
    ):
        self.process, self.num_positions = process, num_positions
        self.backbone, self.parameterisation = backbone, parameterisation
        if run is not None:
            weights = export_folder(run) / "model.safetensors"
            strict_load(backbone, read_file(weights), str(weights))

    @staticmethod
    def resolved_entry(entry: dict) -> dict:
        """The entry with backbone and parameterisation filled in from the run's own spec where it leaves them out."""
        if "run" not in entry or {"backbone", "parameterisation"} <= set(entry):
            return entry
        trained = trained_teacher(export_folder(entry["run"]))
        return {key: trained[key] for key in ("backbone", "parameterisation") if key in trained} | entry

    @staticmethod
    def portable_entry(entry: dict) -> dict:
        """The entry without `run`: an export carries the weights itself."""
        return {key: value for key, value in entry.items() if key != "run"}


def export_folder(path: str) -> Path:
    """The folder with model.safetensors and config.json: `path` itself or its export folder."""
    for folder in (Path(path), Path(path) / "export"):
        if (folder / "model.safetensors").is_file():
            return folder
    raise CheckpointError(f"teacher.run: no model.safetensors in {path} or {path}/export; train the teacher first, or name its run")


def trained_teacher(folder: Path) -> dict:
    """The teacher entry of the spec that an export was trained with."""
    try:
        return json.loads((folder / "config.json").read_text())["spec"]["teacher"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: not the configuration of an export ({error!r})") from error
