"""Folders of the transformers library: configuration, vocabulary, and sharded weights read tensor by tensor."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from di4c.contracts.weight_files import first_line, read_mapping, require_whole
from di4c.contracts.weights import require_finite
from di4c.errors import CheckpointError, SpecError
from di4c.paths import near
from di4c_plugins.datasets.text_encoding import USUAL_MASKS
from di4c_plugins.datasets.text_file import vocabulary_lines
from di4c_plugins.teachers.hub import HUB_NAME, local_path, read_config

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHT_FILES = (SINGLE, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
DATA_FILES = ["*.json", "*.safetensors", "*.bin", "*.txt", "*.model"]
"""What is fetched of a hub repository: never its code."""


def folder_of(path: str, revision: str | None = None) -> Path:
    """The local folder that `path` names, or the local copy of a hub repository's data files (not of its code)."""
    local = local_path(path)
    if local.is_dir():
        return local
    if not HUB_NAME.fullmatch(path):
        raise CheckpointError(f"{path}: no such folder (a hub repository is written as owner/name){near(local)}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=DATA_FILES))
    except Exception as error:  # the hub's client raises many kinds, offline ones among them
        raise CheckpointError(
            f"{path}: no such local folder, and the hub did not give it ({first_line(error)})"
        ) from error


def model_config(folder: Path, model_type: str | None) -> dict:
    """config.json of the folder as a mapping with its `model_type`. Raises SpecError where neither file nor option says it."""
    config = read_config(folder / "config.json")
    if not config:
        raise CheckpointError(f"{folder}: no config.json")
    if model_type is not None:
        config["model_type"] = model_type
    if not isinstance(config.get("model_type"), str):
        raise SpecError(f"teacher.model_type: {folder / 'config.json'} does not say what it is; say it here, e.g. bert")
    return config


def token_ids(folder: Path, trust_remote_code: bool = False) -> Mapping[str, int]:
    """{token: id} of the folder's tokenizer: tokenizer.json, vocab.txt or vocab.json, else what transformers finds."""
    lines = lambda file: {token: i for i, token in enumerate(vocabulary_lines(file))}
    for name, read in (("tokenizer.json", _fast), ("vocab.txt", lines), ("vocab.json", _merged)):
        if (folder / name).exists():
            require_whole(folder / name)
            return read(folder / name)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code).get_vocab()
    except Exception as error:  # each tokenizer reads its files in its own way
        raise CheckpointError(f"{folder}: no tokenizer that can be read ({first_line(error)})") from error


def _fast(file: Path) -> Mapping[str, int]:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{file}: cannot be read as a tokenizer ({first_line(error)})") from error


def _merged(file: Path) -> Mapping[str, int]:
    vocabulary = read_mapping(file) | read_config(file.with_name("added_tokens.json"))
    wrong = next((token for token, number in vocabulary.items() if type(number) is not int), None)
    if wrong is not None:
        raise CheckpointError(f"{file}: the id of {wrong!r} is {vocabulary[wrong]!r}, no whole number")
    return vocabulary


def mask_id(folder: Path, config: Mapping, vocabulary: Mapping[str, int], mask_token: str | None) -> int:
    """The id of the mask token: the one named, config.json's `mask_token_id`, the tokenizer's, or a usual name."""
    if mask_token is not None:
        return token_id(mask_token, vocabulary, "mask_token")
    if config.get("mask_token_id") is not None:
        if type(config["mask_token_id"]) is not int:
            raise CheckpointError(
                f"{folder / 'config.json'}: mask_token_id is {config['mask_token_id']!r}, no whole number"
            )
        return config["mask_token_id"]
    told = [
        read_config(folder / name).get("mask_token") for name in ("special_tokens_map.json", "tokenizer_config.json")
    ]
    names = [entry.get("content") if isinstance(entry, Mapping) else entry for entry in told if entry]
    for name in (*names, *USUAL_MASKS):
        if isinstance(name, str) and name in vocabulary:
            return vocabulary[name]
    raise SpecError(f"teacher.mask_token: the tokenizer of {folder} names no mask token; name one of its tokens")


def token_id(token: str, vocabulary: Mapping[str, int], option: str) -> int:
    """The id of a token that an option names."""
    if token not in vocabulary:
        raise SpecError(f"teacher.{option}: the tokenizer has no token {token!r}")
    return vocabulary[token]


def load_streamed(module: nn.Module, folder: Path, rename: Callable[[str], str], dtype: torch.dtype) -> None:
    """Loads sharded safetensors into a module on the meta device, tensor by tensor: its memory never holds a second copy.

    Raises CheckpointError unless every parameter and persistent buffer is found, with its shape, and nothing else.
    """
    expected = module.state_dict()
    missing = set(expected)
    for name, value in _tensors(folder):
        name = rename(name)
        if name not in expected or value.shape != expected[name].shape:
            there = tuple(expected[name].shape) if name in expected else "no such tensor"
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(value.shape)}; the network of config.json has {there}"
            )
        require_finite({name: value}, str(folder))
        parent, _, last = name.rpartition(".")
        owner = module.get_submodule(parent)
        setattr(owner, last, nn.Parameter(value.to(dtype), requires_grad=True))
        missing.discard(name)
    if missing:
        raise CheckpointError(f"{folder}: {len(missing)} tensors are missing, first {min(missing)}")


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of all safetensors files that belong together, one tensor in memory at a time."""
    from safetensors import SafetensorError, safe_open

    for name in _shards(folder):
        file = folder / name
        if not file.exists():
            raise CheckpointError(f"{folder}: no {name}")
        require_whole(file)
        try:
            with safe_open(file, "pt") as opened:
                for key in opened.keys():
                    yield key, opened.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: cannot be read as safetensors ({first_line(error)})") from error


def _shards(folder: Path) -> list[str]:
    """The names of the safetensors files that belong together."""
    if not (folder / INDEX).exists():
        return [SINGLE]
    files = read_mapping(folder / INDEX).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise CheckpointError(f"{folder / INDEX}: has no weight_map from tensors to files")
    return sorted(set(files.values()))
