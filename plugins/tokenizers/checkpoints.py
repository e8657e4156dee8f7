"""Files that hold a VQGAN: the published last.ckpt with its model.yaml, and runs of `task: tokenizer`.

A path is a local file or folder, or a folder of a hub repository, written as hub:owner/name/path/in/it.
"""

from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from di4c.contracts.weight_files import first_line, read_mapping, require_whole
from di4c.errors import CheckpointError
from di4c.paths import user_path
from di4c_plugins.teachers.containers import read_file, tensors_at
from di4c_plugins.teachers.hub import INSIDE_HUB, locate_file

PUBLISHED = ("last.ckpt", "model.yaml")
EXPORTED = ("model.safetensors", "config.json")
PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")
"""What of a published checkpoint is the tokenizer; its discriminator and perceptual loss are not."""


def recorded_options(path: str) -> dict[str, Any]:
    """VQGAN's options that lie beside its weights, in config.json or model.yaml; {} if neither is there."""
    folder = weights_file(path).parent
    if (folder / EXPORTED[1]).exists():
        return _exported_options(folder / EXPORTED[1])
    if (folder / PUBLISHED[1]).exists():
        return _published_options(folder / PUBLISHED[1])
    return {}


def tokenizer_state(path: str) -> dict[str, Tensor]:
    """The tokenizer's tensors by published name."""
    file = weights_file(path)
    content = read_file(file)
    tensors = tensors_at(content, "state_dict" if "state_dict" in content else None, str(file))
    return {name: value for name, value in tensors.items() if name.startswith(PARTS)}


def weights_file(path: str) -> Path:
    """The file of weights that `path` names, its options fetched with it. CheckpointError says what was looked for."""
    if path.startswith(INSIDE_HUB):
        first, *_ = [locate_file(f"{path}/{name}") for name in PUBLISHED]  # all are wanted, in one folder
        return first
    given = user_path(path)
    for file in (given, given / "export" / EXPORTED[0], given / EXPORTED[0], given / PUBLISHED[0]):
        if file.is_file():
            return file
    raise CheckpointError(
        f"tokenizer.path: no tokenizer in {path}; looked for {EXPORTED[0]} (there or in export/) and {PUBLISHED[0]}. "
        "Train one with `task: tokenizer`, or name a published VQGAN's folder"
    )


def _published_options(file: Path) -> dict[str, Any]:
    """model.yaml's model.params in this class's words."""
    require_whole(file)
    try:
        params = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["params"]
        network = params["ddconfig"]
        if network.get("double_z"):
            raise CheckpointError(f"{file}: double_z is true: a continuous autoencoder, not a VQGAN")
        return {
            "image_size": network["resolution"],
            "channels": network["in_channels"],
            "num_codes": params["n_embed"],
            "embed_dim": params["embed_dim"],
            **{key: network[key] for key in ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "z_channels")},
        }
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: not a VQGAN's model.yaml with model.params.ddconfig ({first_line(error)})"
        ) from error


def _exported_options(file: Path) -> dict[str, Any]:
    """The tokenizer entry of the spec that an export was trained with."""
    content = read_mapping(file)
    try:
        entry = dict(content["spec"]["objective"]["tokenizer"])
        earlier = recorded_options(entry["path"]) if entry.get("path") else {}
        return {**earlier, **{key: value for key, value in entry.items() if key not in ("name", "path")}}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: not the configuration of a tokenizer's export ({first_line(error)})") from error
