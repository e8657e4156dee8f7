"""What an export keeps of the data: sizes, label names, training labels and a decoder, so that the data need not be at hand."""

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from di4c.contracts import DataSource, Decoder
from di4c.contracts.weight_files import read_tensors
from di4c.engine.exported import export_config
from di4c.errors import CheckpointError, Di4CError, SpecError

LABELS_FILE = "labels.safetensors"
LARGEST_SIZE = 2**31


@dataclass(frozen=True)
class Carried:
    """Of the data: sizes, names of the classes, and in `folder` what is large; `entry` says how to make the decoder.

    It stands in for the data set wherever sizes are enough.
    """

    num_positions: int
    num_states: int
    num_classes: int | None
    label_names: list[str] | None
    entry: dict[str, Any] | None
    folder: Path

    @cached_property
    def decoder(self) -> Decoder:
        """What makes samples visible. SpecError where the export carries none, CheckpointError where it is damaged."""
        if self.entry is None or "missing" in self.entry:
            reason = self.entry["missing"] if self.entry else "their data say no way"
            raise SpecError(f"{self.folder}: samples of this model cannot be decoded: {reason}")
        try:
            values = dict(self.entry)
            module, _, name = values.pop("class").partition(":")
            return getattr(importlib.import_module(module), name).restored(self.folder, values)
        except Di4CError:
            raise
        except Exception as error:  # whatever a damaged entry or a changed class raises
            raise CheckpointError(f"{self.folder}/config.json: its decoder cannot be made ({error!r})") from error

    @cached_property
    def labels(self) -> Tensor | None:
        """The labels of the training examples, in order: [n] int64, or None."""
        file = self.folder / LABELS_FILE
        if self.num_classes is None or not file.exists():
            return None
        labels = read_tensors(file).get("labels")
        allowed = f"labels 0 to {self.num_classes - 1}, one for every training example"
        if labels is None or labels.dim() != 1 or labels.is_floating_point() or not len(labels):
            raise CheckpointError(f"{file}: not the labels of an export; expected {allowed}")
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise CheckpointError(f"{file}: labels {labels.min()} to {labels.max()}; expected {allowed}")
        return labels.long()


def write_carried(data: DataSource, folder: Path) -> dict[str, Any]:
    """Writes what an export keeps of its data to the folder; the part for config.json."""
    labels = None if data.num_classes is None else data.split("train").labels()
    if labels is not None:
        save_file({"labels": labels.to(torch.int32).contiguous()}, folder / LABELS_FILE)
    return {
        "num_positions": data.num_positions, "num_states": data.num_states, "num_classes": data.num_classes,
        "label_names": data.label_names if data.num_classes is not None else None, "decoder": _decoder_entry(data, folder),
    }  # fmt: skip


def read_carried(folder: Path) -> Carried | None:
    """What the export in the folder carries; None for one that was written before exports carried anything."""
    values = export_config(folder).get("data")
    if values is None:
        return None
    try:
        sizes = [values[key] for key in ("num_positions", "num_states", "num_classes")]
        for size in sizes if sizes[2] is not None else sizes[:2]:
            if type(size) is not int or not 0 < size < LARGEST_SIZE:
                raise ValueError(f"sizes {sizes}")
        names, entry = values["label_names"], values["decoder"]
        if not isinstance(names, list | None) or not isinstance(entry, dict | None):
            raise ValueError(f"label_names {names!r}, decoder {entry!r}")
        return Carried(sizes[0], sizes[1], sizes[2], names, entry, folder)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: what it says of the data cannot be read ({error!r})"
        ) from error


def _decoder_entry(data: DataSource, folder: Path) -> dict[str, Any] | None:
    decoder = data.decoder()
    if decoder is None:
        return None
    kind = type(decoder)
    try:
        return {"class": f"{kind.__module__}:{kind.__qualname__}", **decoder.save(folder)}
    except SpecError as error:
        return {"missing": str(error)}
