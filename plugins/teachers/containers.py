"""Checkpoint files of published models: read safely, stripped of prefixes, EMA applied, and fitted strictly."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from di4c.contracts.weight_files import first_line, read_tensors, require_whole
from di4c.errors import CheckpointError
from di4c.paths import user_path

MAX_SHOWN = 4
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""The parts of a name that torch.compile, FSDP and recomputation add, anywhere in it."""
PARALLEL = "module."
"""What DataParallel and DistributedDataParallel put before every name."""


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
    path = user_path(path)
    require_whole(path)
    content = read_tensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a mapping with tensors")
    return dict(content)


def _read_torch(path: Path) -> object:
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except ValueError:  # the older, not zipped format cannot be listed; it is read without stand-ins
        foreign = []
    except Exception as error:
        raise CheckpointError(f"{path}: {_why_not_torch(error)}") from error
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in foreign]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: {_why_not_torch(error)}") from error


def _why_not_torch(error: Exception) -> str:
    """In this project's words: torch's own message advises to run the code in a file."""
    text = str(error)
    if "TorchScript" in text:
        return (
            "is a TorchScript archive; save the network's state dict instead (torch.save(network.state_dict(), FILE))"
        )
    if "Unsupported" in text:
        return "holds objects that are no tensors; save the state dict alone (torch.save(network.state_dict(), FILE))"
    said = type(error).__name__ if "eights" in text and "only" in text else first_line(error)
    return f"cannot be read as a torch file; it is truncated, or of another format ({said})"


def tensors_at(content: Mapping, key: str | None, source: str) -> dict[str, Tensor]:
    """The tensors {name: Tensor} under `key` of a container (key None: the container itself); others are left out.

    Raises CheckpointError that lists the keys there are when `key` is absent or holds no tensors.
    """
    if key is not None and key not in content:
        raise CheckpointError(f"{source}: no entry '{key}'; there are: {_shown(content)}")
    inside = content if key is None else content[key]
    entries = inside.items() if isinstance(inside, Mapping) else ()
    tensors = {k: v for k, v in entries if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        where = f"entry '{key}'" if key else "the file"
        raise CheckpointError(f"{source}: {where} holds no tensors; there are: {_shown(content)}")
    return tensors


def without(state: Mapping[str, Tensor], source: str, *prefixes: str) -> dict[str, Tensor]:
    """The same tensors without WRAPPERS in their names, and without the prefixes at the start, in any order and number.

    `without(state, source, "backbone.", PARALLEL)` undoes any number of these wrappers. CheckpointError where two become one.
    """
    renamed = {}
    for key, value in state.items():
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        while prefix := next((p for p in prefixes if p and name.startswith(p)), None):
            name = name[len(prefix) :]
        if name in renamed:
            raise CheckpointError(
                f"{source}: two tensors are called '{name}' once the prefixes of wrappers are cut off"
            )
        renamed[name] = value
    return renamed


def named_as(module: torch.nn.Module, state: Mapping[str, Tensor], source: str, prefix: str = "") -> dict[str, Tensor]:
    """The tensors under the module's own names where they can be had: `prefix`, and what DDP, torch.compile and FSDP add, cut off.

    Of the ways to read the names the one with most in common with the module is taken, first the plainest; the others are
    strict_load's to refuse. Names without a `prefix` that others carry (metrics, noise schedules) are left out where the module
    does not know them.
    """
    own = module.state_dict().keys()
    bare = without(state, source)
    ways = [_cut(names, prefix) for names in (state, bare, _cut(bare, PARALLEL))]
    ways += [_cut(names, PARALLEL) for names in ways]
    if prefix:
        inside = [below(names, prefix) for names in (state, bare, _cut(bare, PARALLEL))]
        ways += [*inside, *(_cut(names, PARALLEL) for names in inside)]
    return max(ways, key=lambda names: (len(own & names.keys()), -len(names.keys() - own)))


def _cut(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors, `prefix` cut off once from the names that begin with it; as they are where two would become one."""
    cut = {key.removeprefix(prefix): value for key, value in state.items()}
    return cut if len(cut) == len(state) else dict(state)


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it; the others are left out."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def with_shadows(
    state: Mapping[str, Tensor], shadows: Iterable[Tensor], source: str, buffers: Collection[str] = ()
) -> dict[str, Tensor]:
    """The state with its parameters replaced by EMA shadows, a list in parameter order.

    A state dict keeps registration order, so its entries without the `buffers` (names) are the parameters in order. Raises CheckpointError where number or shapes do not agree.
    """
    if not isinstance(shadows, list | tuple) or not all(isinstance(shadow, Tensor) for shadow in shadows):
        raise CheckpointError(f"{source}: its EMA shadows are not a list of tensors")
    shadows = list(shadows)
    names = [key for key in state if key not in buffers]
    if len(shadows) != len(names):
        raise CheckpointError(
            f"{source}: {len(shadows)} EMA shadows for {len(names)} parameters; the shadows are listed in parameter "
            "order, so they cannot be assigned (a buffer, a frozen or a shared tensor has none). Load the raw weights "
            "instead (ema: false), or write a teacher that knows them (docs/extending.md, port a network of yours)"
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
