"""Where a checkpoint lies: a local file or folder, or a repository of the Hugging Face hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from di4c.contracts.weight_files import first_line, read_mapping, require_whole
from di4c.errors import CheckpointError, SpecError
from di4c.paths import near, user_path

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INSIDE_HUB = "hub:"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Located:
    """A file of weights, and the config.json beside it ({} if there is none)."""

    weights: Path
    config: dict


def locate(path: str, revision: str | None = None) -> Located:
    """The weights that `path` names: a file, a folder with model.safetensors or pytorch_model.bin, or a hub name.

    Hub files are fetched once into the hub's own cache. Raises CheckpointError that says what was looked for.
    """
    local = local_path(path)
    if local.is_file():
        return Located(local, {})
    if local.is_dir():
        for name in WEIGHTS:
            if (local / name).is_file():
                return Located(local / name, read_config(local / "config.json"))
        raise CheckpointError(f"{path}: the folder has none of {', '.join(WEIGHTS)}")
    if not HUB_NAME.fullmatch(path):
        raise CheckpointError(
            f"{path}: no such file or folder (a hub repository is written as owner/name){near(local)}"
        )
    return _from_hub(path, revision)


def locate_file(path: str, revision: str | None = None) -> Path:
    """A local file, or the local copy of a file inside a hub repository, written as hub:owner/name/path/in/it.

    The hub is asked only where the path says so: a mistyped local path is an error at once.
    """
    if not path.startswith(INSIDE_HUB):
        local = local_path(path)
        if local.exists():
            require_whole(local)
            return local
        raise CheckpointError(
            f"{path}: no such file (a file of a hub repository is written as {INSIDE_HUB}owner/name/path/in/it){near(local)}"
        )
    owner, _, rest = path.removeprefix(INSIDE_HUB).partition("/")
    name, _, inside = rest.partition("/")
    if not inside or not HUB_NAME.fullmatch(f"{owner}/{name}"):
        raise CheckpointError(f"{path}: expected {INSIDE_HUB}owner/name/path/in/it")
    found = _fetch(f"{owner}/{name}", inside, revision)
    if found is None:
        raise CheckpointError(f"{path}: the hub repository {owner}/{name} has no file {inside}")
    return found


def local_path(path: str) -> Path:
    """The path on this machine that `path` would be. Raises CheckpointError for what can be none: too long, say."""
    try:
        local = user_path(path)
        local.exists()
    except (SpecError, OSError) as error:
        raise CheckpointError(f"{path}: is no path ({getattr(error, 'strerror', None) or error})") from error
    return local


def read_config(path: Path) -> dict:
    """The mapping in a config.json; {} if the file is not there. Raises CheckpointError for a damaged one."""
    return read_mapping(path) if path.exists() else {}


def _from_hub(name: str, revision: str | None) -> Located:
    for file in WEIGHTS:
        weights = _fetch(name, file, revision)
        if weights is not None:
            config = _fetch(name, "config.json", revision)
            return Located(weights, read_config(config) if config is not None else {})
    raise CheckpointError(f"{name}: revision {revision or 'main'} on the hub has none of {', '.join(WEIGHTS)}")


def _fetch(name: str, file: str, revision: str | None) -> Path | None:
    """The local copy of a hub file; None if the repository has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo_id=name, filename=file, revision=revision))
    except Exception as error:  # the hub's client raises many kinds, its transport's among them
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise CheckpointError(
            f"{name}: no such local file, and the hub did not give revision {revision or 'main'} ({first_line(error)})"
        ) from error
