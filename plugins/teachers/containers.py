"""Checkpoint files of published models: read safely, stripped of prefixes, EMA applied, and fitted strictly."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from di4c.contracts import strict_load
from di4c.errors import CheckpointError

__all__ = ["Inert", "below", "not_found", "read_file", "strict_load", "tensors_at", "with_shadows", "without"]

MAX_SHOWN = 4


class Inert:
    """Stands for any foreign object in a pickled checkpoint (a configuration, a tokenizer): does nothing."""

    def __new__(cls, *args, **kwargs) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args, **kwargs) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def read_file(path: str | Path) -> dict:
    """The mapping that a .safetensors or torch file holds, on the CPU. Nothing in a file is imported or executed.

    Torch files are read with weights_only=True; objects of foreign classes that published checkpoints carry beside
    their tensors become `Inert`. Raises CheckpointError for a file that is absent, truncated or of another format.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as a {'safetensors' if path.suffix == '.safetensors' else 'torch'} file; it is "
            f"truncated, or of another format ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a mapping with tensors")
    return dict(content)


def _read_safetensors(path: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(str(path))


def _read_torch(path: Path) -> object:
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except ValueError:  # the older, not zipped format cannot be listed; it is read without stand-ins
        foreign = []
    with torch.serialization.safe_globals([(Inert, name) for name in foreign]):
        return torch.load(path, map_location="cpu", weights_only=True)


def tensors_at(content: Mapping, key: str | None, source: str) -> dict[str, Tensor]:
    """The tensors {name: Tensor} under `key` of a container (key None: the container itself); others are left out.

    Raises CheckpointError that lists the keys there are when `key` is absent or holds no tensors.
    """
    if key is not None and key not in content:
        raise CheckpointError(f"{source}: no entry '{key}'; there are: {_shown(content)}")
    inside = content if key is None else content[key]
    tensors = {k: v for k, v in inside.items() if isinstance(v, Tensor)} if isinstance(inside, Mapping) else {}
    if not tensors:
        where = f"entry '{key}'" if key else "the file"
        raise CheckpointError(f"{source}: {where} holds no tensors; there are: {_shown(content)}")
    return tensors


def without(state: Mapping[str, Tensor], *fragments: str) -> dict[str, Tensor]:
    """The same tensors, every occurrence of the fragments cut out of their names, one fragment after the other.

    `without(state, "_orig_mod.", "backbone.")` undoes torch.compile's and any number of wrappers' prefixes.
    """
    renamed = {}
    for key, value in state.items():
        for fragment in fragments:
            key = key.replace(fragment, "")
        renamed[key] = value
    return renamed


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it; the others are left out."""
    return {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)}


def with_shadows(
    state: Mapping[str, Tensor], shadows: Iterable[Tensor], source: str, buffers: Iterable[str] = ()
) -> dict[str, Tensor]:
    """The state with its parameters replaced by EMA shadows, a list in parameter order.

    A state dict keeps registration order, so its entries without the `buffers` (name endings) are the parameters in
    order. Raises CheckpointError where number or shapes do not agree.
    """
    shadows, endings = list(shadows), tuple(buffers)
    names = [key for key in state if not (endings and key.endswith(endings))]
    if len(shadows) != len(names):
        raise CheckpointError(
            f"{source}: {len(shadows)} EMA shadows for {len(names)} parameters; the shadows are listed in parameter "
            "order, so they cannot be assigned. Load the raw weights instead (ema: false)"
        )
    wrong = [n for n, s in zip(names, shadows, strict=True) if s.shape != state[n].shape]
    if wrong:
        raise CheckpointError(f"{source}: EMA shadows have other shapes than their parameters, first at '{wrong[0]}'")
    return {**state, **dict(zip(names, shadows, strict=True))}


def not_found(name: str, state: Mapping[str, Tensor]) -> str:
    """What a message says of a tensor that a network's sizes are read from, and that is not there."""
    prefix = next((key[: -len(name)] for key in state if key.endswith("." + name)), None)
    hint = f"; the names carry the prefix '{prefix}', which has to be cut off" if prefix else ""
    return f"no '{name}'; it has {', '.join(list(state)[:MAX_SHOWN])}, …{hint}"


def _shown(content: Mapping) -> str:
    names = [str(key) for key in content]
    return ", ".join(names[: 2 * MAX_SHOWN]) + (f" and {len(names) - 2 * MAX_SHOWN} more" if len(names) > 8 else "")
