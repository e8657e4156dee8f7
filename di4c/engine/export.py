"""The trained model as a folder that loads without DeepSpeed and without its data: model.safetensors, config.json, what the data
left behind (carried.py) and a model card (card.py)."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from di4c.contracts import DataSource
from di4c.engine.archive import write_safetensors
from di4c.engine.card import write_card
from di4c.engine.carried import write_carried
from di4c.engine.checkpoint import Checkpoint
from di4c.files import replacing_folder, sync_folder, write_bytes

PREFIX = "model."
"""Of an objective only this submodule is exported, without what is trained beside the model inside it."""


def export(checkpoint: Checkpoint, out: Path, spec: dict[str, Any], commit: str | None, **beside: Any) -> Path:
    """Writes the averaged weights of a checkpoint (the raw ones if it has no average) to the folder `out`; `out`.

    spec: rebuilds the model. beside: what write_export takes beside these.
    """
    weights, names = _exported(checkpoint)
    averaged = (checkpoint.path / "ema.safetensors").exists()
    facts = {"step": checkpoint.step, "weights": "ema" if averaged else "raw", "commit": commit}
    write_export(out, spec, facts, lambda folder: _write_model(folder / "model.safetensors", weights, names), **beside)
    return out


def write_export(
    out: Path,
    spec: dict[str, Any],
    facts: Mapping[str, Any],
    write_model: Callable[[Path], None],
    *,
    data: DataSource | None = None,
    told: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Writes an export whose weights `write_model` puts into a folder, in one move. facts: step, weights, commit.

    spec: rebuilds the model. data: of which sizes, label names, labels and decoder go along. told: the spec that the model card
    speaks of, if it is another one; metrics: its numbers.
    """
    config = {"format": "di4c-export", "version": 1, "task": spec.get("task"), "spec": spec, **facts}
    with replacing_folder(out) as folder:
        if data is not None:
            config["data"] = write_carried(data, folder)
        write_model(folder)
        write_bytes(folder / "config.json", (json.dumps(config, indent=1) + "\n").encode())
        write_card(folder, config if told is None else {**config, "spec": told}, metrics or {})
        sync_folder(folder)


def copy_export(source: Path, out: Path) -> None:
    """The export in another folder; its large files are shared where the file system can."""
    with replacing_folder(out) as folder:
        shutil.copytree(source, folder, copy_function=_linked, dirs_exist_ok=True)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _exported(checkpoint: Checkpoint) -> tuple[dict[str, Path], dict[str, str]]:
    """({name in the checkpoint: its file}, {exported name: name in the checkpoint}), tied parameters under every name."""
    source: dict[str, Path] = {}
    for file in (checkpoint.path / "model.safetensors", checkpoint.path / "ema.safetensors"):
        if file.exists():
            with safe_open(file, "pt") as archive:
                source |= dict.fromkeys(archive.keys(), file)
    aliases = {n: n for n in source} | checkpoint.state["aliases"]
    beside = set(checkpoint.state.get("beside", ()))
    exported = {a: n for a, n in sorted(aliases.items()) if a.startswith(PREFIX) and n not in beside}
    return source, {a[len(PREFIX) :]: n for a, n in exported.items()}


def _write_model(path: Path, source: dict[str, Path], names: dict[str, str]) -> None:
    archives = {file: safe_open(file, "pt") for file in set(source.values())}

    def tensor(name: str) -> Tensor:
        return archives[source[name]].get_tensor(name)

    entries = []
    for exported, name in names.items():
        value = tensor(name)
        entries.append((exported, value.dtype, tuple(value.shape)))
    write_safetensors(path, entries, (tensor(name) for name in names.values()))
