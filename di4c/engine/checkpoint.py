"""Checkpoints in one consolidated format, so that any ZeRO stage and number of ranks resumes any other's.

    RUN/checkpoints/step-00000500/
        model.safetensors       trained parameters (float32), frozen parameters and buffers
        ema.safetensors         averaged parameters of the model, if the run has an average
        optimizer.safetensors   "exp_avg/NAME" and so on
        state.json              step, scalars, fingerprint of the data, how it was trained
        manifest.json           size and sha256 of each of the above
    RUN/checkpoints/latest      the name of the newest one

A folder bears its final name only once it is complete and on disk.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from di4c import ranks
from di4c.contracts.weight_files import read_mapping
from di4c.contracts.weights import require_finite
from di4c.engine.archive import DTYPES, Entry, write_safetensors
from di4c.engine.ema import MovingAverage
from di4c.engine.shards import Shards
from di4c.errors import CheckpointError, SpecError, TrainingError, describe_os_error
from di4c.files import replace_file, replace_folder, sha256_of, sync_folder, write_bytes

FORMAT = 1
_MANIFEST = "manifest.json"
_NEEDED = ("model.safetensors", "optimizer.safetensors", "state.json")
"""The files that every checkpoint has."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk; `state` is what state.json holds."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return self.state["step"]


def save(folder: Path, shards: Shards, average: MovingAverage | None, state: dict[str, Any], *, keep: int) -> Path:
    """Writes the checkpoint of state["step"] below `folder` and keeps the newest `keep`; its path. Collective.

    Raises TrainingError on all ranks if it cannot be written; older checkpoints are then untouched.
    """
    final = folder / f"step-{state['step']:08d}"
    temporary = folder / f".{final.name}.tmp"
    ranks.on_rank_zero(lambda: _begin(temporary))
    digests: dict[str, str] = {}
    failures: list[OSError] = []
    for name, entries, tensors in _files(shards, average):
        _write(temporary / name, entries, tensors, digests, failures)
    ranks.on_rank_zero(lambda: _complete(temporary, final, state, digests, failures, keep))
    return final


def check_types(shards: Shards) -> None:
    """SpecError for a frozen parameter or buffer of a type that no checkpoint holds."""
    for name, tensor in (shards.frozen | _persistent_buffers(shards)).items():
        if tensor.dtype not in DTYPES:
            raise SpecError(
                f"{name} is of type {tensor.dtype}, which a checkpoint cannot hold; give it another, or register a buffer that is "
                "made anew with persistent=False"
            )


def newest(folder: Path, warn) -> Checkpoint | None:
    """The newest undamaged checkpoint below `folder`, or None if there is none at all.

    `warn` is given a message for every damaged one that is passed over. Raises CheckpointError if all are damaged.
    """
    found, faults = candidates(folder), []
    for path in found:
        fault = damage(path)
        if fault is None:
            return Checkpoint(path, read_mapping(path / "state.json"))
        faults.append(f"{path.name}: {fault}")
        warn(f"checkpoint {path} is damaged ({fault}); looking for an older one")
    if found:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged ({faults[0]}); restore one, or train in a new folder"
        )
    return None


def candidates(folder: Path) -> list[Path]:
    """The checkpoints below `folder` by name, newest first, damaged or not."""
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True)


def damage(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    try:
        manifest = read_mapping(path / _MANIFEST)
        listed = dict(manifest["files"])
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']}, this version reads {FORMAT}"
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        return str(error) if isinstance(error, CheckpointError) else f"{_MANIFEST}: {error!r}"
    for name in (*_NEEDED, *(name for name in listed if name not in _NEEDED)):
        if name not in listed:
            return f"{_MANIFEST} does not list {name}"
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        try:
            if sha256_of(file) != listed[name]:
                return f"{name} does not match its checksum"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def restore(checkpoint: Checkpoint, shards: Shards, average: MovingAverage | None) -> None:
    """Puts weights, moments and average back, bit by bit, whatever stage and number of ranks wrote them. Collective.

    Raises CheckpointError if the parameters are not those of this model, or hold NaN or infinity.
    """
    path = checkpoint.path
    if not path.is_dir():
        raise CheckpointError(
            f"rank {ranks.rank()} cannot see {path}; the run folder must be on storage that all nodes share"
        )
    buffers = _persistent_buffers(shards)
    with safe_open(path / "model.safetensors", "pt") as file:
        _check_names(path, file, shards, buffers)
        shards.prime()
        masters = shards.masters()
        for name in shards.names:
            shards.assign(masters, name, _weight(file, name, path))
        for name in shards.frozen:
            shards.assign_frozen(name, _weight(file, name, path))
        for name, buffer in buffers.items():
            buffer.copy_(file.get_tensor(name))
    shards.refresh()
    with safe_open(path / "optimizer.safetensors", "pt") as file:
        for key, tensors in shards.moments().items():
            for name in shards.names:
                shards.assign(tensors, name, _entry(file, f"{key}/{name}", path))
    state = checkpoint.state
    shards.set_step_count(
        state["optimizer_steps"], beside=state.get("optimizer_steps_beside", state["optimizer_steps"])
    )
    if average is not None:
        _restore_average(path, shards, average)


def _restore_average(path: Path, shards: Shards, average: MovingAverage) -> None:
    """From the checkpoint's average, or from its weights if it has none."""
    file = path / "ema.safetensors"
    with safe_open(file if file.exists() else path / "model.safetensors", "pt") as source:
        for name in average.names:
            shards.assign(average.tensors, name, _weight(source, name, path))


def _check_names(path: Path, file: Any, shards: Shards, buffers: dict[str, Tensor]) -> None:
    shapes = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}
    frozen = {n: tuple(getattr(p, "ds_shape", p.shape)) for n, p in shards.frozen.items()}
    expected = shards.shapes | frozen | {n: tuple(b.shape) for n, b in buffers.items()}
    for name in expected.keys() - shapes.keys():
        raise CheckpointError(f"{path} is of another model: it has no parameter {name!r}")
    for name in shapes.keys() - expected.keys():
        raise CheckpointError(f"{path} is of another model: this one has no parameter {name!r}")
    for name, shape in expected.items():
        if shape != shapes[name]:
            raise CheckpointError(f"{path} is of another model: {name!r} has shape {shapes[name]}, here {shape}")


def _weight(file: Any, name: str, path: Path) -> Tensor:
    tensor = file.get_tensor(name)
    require_finite({name: tensor}, str(path))
    return tensor


def _entry(file: Any, name: str, path: Path) -> Tensor:
    if name not in file.keys():
        raise CheckpointError(f"{path} was written by another optimizer: it has no {name!r}")
    return file.get_tensor(name)


def _files(shards: Shards, average: MovingAverage | None) -> Iterator[tuple[str, list[Entry], Iterator[Tensor]]]:
    """(file name, entries, tensors) of a checkpoint's weights; reading the tensors is collective."""
    buffers = _persistent_buffers(shards)
    weights = _entries(shards.names, shards, "")
    extra = [(n, p.dtype, tuple(getattr(p, "ds_shape", p.shape))) for n, p in shards.frozen.items()]
    extra += [(n, b.dtype, tuple(b.shape)) for n, b in buffers.items()]
    yield "model.safetensors", weights + extra, _model_tensors(shards, buffers)
    if average is not None:
        entries = _entries(average.names, shards, "")
        yield "ema.safetensors", entries, (shards.full(average.tensors, name) for name in average.names)
    moments = shards.moments()
    entries = [entry for key in moments for entry in _entries(shards.names, shards, f"{key}/")]
    yield "optimizer.safetensors", entries, (shards.full(t, n) for t in moments.values() for n in shards.names)


def _entries(names: Iterable[str], shards: Shards, prefix: str) -> list[Entry]:
    return [(prefix + n, torch.float32, shards.shapes[n]) for n in names]


def _model_tensors(shards: Shards, buffers: dict[str, Tensor]) -> Iterator[Tensor]:
    masters = shards.masters()
    yield from (shards.full(masters, name) for name in shards.names)
    yield from (shards.full_frozen(name) for name in shards.frozen)
    yield from buffers.values()


def _persistent_buffers(shards: Shards) -> dict[str, Tensor]:
    """The buffers that the module's state dict holds."""
    module = shards.engine.module
    held = module.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in module.named_buffers() if name in held}


def _write(path: Path, entries: list[Entry], tensors: Iterator[Tensor], digests: dict, failures: list) -> None:
    """Writes one file on rank 0; the other ranks, and rank 0 after a failure, only take part in the gathering."""
    if ranks.rank() == 0 and not failures:
        try:
            digests[path.name] = write_safetensors(path, entries, tensors)
            return
        except OSError as error:
            failures.append(error)
    for _ in tensors:
        pass


def _begin(temporary: Path) -> None:
    clear_unfinished(temporary.parent)
    temporary.mkdir(parents=True)


def clear_unfinished(folder: Path) -> None:
    """Removes what a killed run was writing."""
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _complete(temporary: Path, final: Path, state: dict, digests: dict, failures: list[OSError], keep: int) -> None:
    try:
        if failures:
            raise failures[0]
        digests["state.json"] = write_bytes(temporary / "state.json", json.dumps(state, indent=1).encode())
        manifest = {"format": FORMAT, "files": digests}
        write_bytes(temporary / _MANIFEST, json.dumps(manifest, indent=1).encode())
        sync_folder(temporary)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(f"{final.name} was not saved: {describe_os_error(error)}") from error
    replace_folder(final, temporary)
    sync_folder(final.parent)
    replace_file(final.parent / "latest", final.name + "\n")
    _prune(final, keep)


def _prune(final: Path, keep: int) -> None:
    clear_unfinished(final.parent)
    older = [p for p in candidates(final.parent) if p.name <= final.name]
    for path in older[max(1, keep) :]:
        doomed = path.with_name(f".{path.name}.old")
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
