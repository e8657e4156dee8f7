"""A teacher made of a backbone and a parameterisation: what `task: pretrain` trains."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from di4c.contracts import Backbone, ForwardProcess, Parameterisation, Teacher
from di4c.errors import CheckpointError, SpecError


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
            load_export(backbone, export_folder(run))

    @staticmethod
    def portable_entry(entry: dict) -> dict:
        """The entry without `run`: an export carries the weights itself."""
        return {key: value for key, value in entry.items() if key != "run"}


def export_folder(path: str) -> Path:
    """The folder with model.safetensors and config.json under a run folder, or the path itself if it is one."""
    for folder in (Path(path), Path(path) / "export"):
        if (folder / "model.safetensors").is_file():
            return folder
    raise CheckpointError(f"teacher.run: no model.safetensors in {path} or {path}/export; train the teacher first, or give its run folder")


def load_export(backbone: Backbone, folder: Path) -> None:
    """Loads an export's weights into the backbone, strictly."""
    try:
        state = load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / 'model.safetensors'}: not a readable safetensors file ({error})") from error
    own = backbone.state_dict()
    wrong = sorted(set(own) ^ set(state)) + sorted(k for k in set(own) & set(state) if own[k].shape != state[k].shape)
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} keys or shapes do not fit the spec's backbone, first {', '.join(wrong[:4])}; "
            "give teacher.backbone the options the run was trained with (its config.json has them)"
        )
    backbone.load_state_dict(state)


def trained_spec(folder: Path) -> dict:
    """The spec an export was trained with."""
    try:
        return json.loads((folder / "config.json").read_text())["spec"]
    except (OSError, ValueError, KeyError) as error:
        raise SpecError(f"{folder / 'config.json'}: not an export's configuration ({error})") from error
