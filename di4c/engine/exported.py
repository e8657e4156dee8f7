"""Reading an export; needs no DeepSpeed."""

from pathlib import Path
from typing import Any

from torch import nn

from di4c.contracts.weight_files import read_mapping, read_tensors
from di4c.contracts.weights import strict_load
from di4c.errors import CheckpointError


def load_into(model: nn.Module, folder: Path) -> dict[str, Any]:
    """Loads an export into `model`, strictly; its config.json.

    Raises CheckpointError if the folder is no export or its weights are not this model's.
    """
    config = export_config(folder)
    tensors = read_tensors(folder / "model.safetensors")
    strict_load(model, tensors, str(folder / "model.safetensors"))
    return config


def export_config(folder: Path) -> dict[str, Any]:
    """What an export's config.json holds. Raises CheckpointError."""
    file = folder / "config.json"
    config = read_mapping(file)
    if config.get("format") != "di4c-export" or config.get("version") != 1:
        raise CheckpointError(
            f"{file}: not the configuration of an export of this project: expected format di4c-export, version 1"
        )
    if not isinstance(config.get("spec"), dict):
        raise CheckpointError(f"{file}: has no `spec`; it is damaged")
    return config


def exported_step(folder: Path) -> int:
    """The number of updates behind an export; 0 if there is none. Raises CheckpointError for a damaged one."""
    file = folder / "config.json"
    step = export_config(folder).get("step") if file.is_file() else 0
    if not isinstance(step, int):
        raise CheckpointError(f"{file}: has no number `step`; it is damaged")
    return step
