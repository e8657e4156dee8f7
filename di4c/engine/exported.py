"""Reading an export; needs no DeepSpeed."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from di4c.contracts.weights import strict_load
from di4c.errors import CheckpointError


def load_into(model: nn.Module, folder: Path) -> dict[str, Any]:
    """Loads an export into `model`, strictly; its config.json.

    Raises CheckpointError if the folder is no export or its weights are not this model's.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
    except Exception as error:
        raise CheckpointError(f"{folder} is not a readable export (config.json, model.safetensors): {error}") from error
    if config.get("format") != "di4c-export" or config.get("version") != 1:
        raise CheckpointError(f"{folder}/config.json: expected format di4c-export, version 1")
    strict_load(model, tensors, str(folder / "model.safetensors"))
    return config


def exported_step(folder: Path) -> int:
    """The number of updates behind an export; 0 if there is none."""
    file = folder / "config.json"
    return int(json.loads(file.read_text(encoding="utf-8"))["step"]) if file.is_file() else 0
