"""Masked language models of the transformers library, LLaDA and Dream among them."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from di4c.contracts import ForwardProcess, Parameterisation, Teacher
from di4c.contracts.weight_files import first_line, require_whole
from di4c.contracts.weights import require_finite
from di4c.errors import CheckpointError, Di4CError, SpecError
from di4c_plugins.backbones.hf import MaskedLM, split_output_head
from di4c_plugins.backbones.hf_families import FAMILIES, check_rotation, family_network
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.teachers.hf_files import (
    WEIGHT_FILES,
    folder_of,
    load_streamed,
    mask_id,
    model_config,
    token_id,
    token_ids,
)


class HFMaskedLM(Teacher):
    """A masked language model as a teacher of masked diffusion: from a local folder or a hub name, or random from `config`.

    path: with config.json, weights and tokenizer (`revision` for a hub name). config: instead, what config.json would say, with
    `mask_token_id`. model_type: where config.json does not say it (rxnfp's does not: bert).
    mask_token: where the tokenizer does not name it. before, after: tokens that frame every sequence, e.g. [CLS] and [SEP].
    dropout: replaces every dropout probability of the configuration. activation_checkpointing: recompute blocks when training.
    trust_remote_code: the repository whose own code may be run, spelt as in `path`; LLaDA and Dream need none.
    The process must mask with the tokenizer's mask token: process: {name: absorbing, mask_index: …}.
    """

    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        path: str | None = None,
        revision: str | None = None,
        config: dict[str, Any] | None = None,
        model_type: str | None = None,
        mask_token: str | None = None,
        before: list[str | int] | None = None,
        after: list[str | int] | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        dropout: float | None = None,
        activation_checkpointing: bool = False,
        trust_remote_code: str | None = None,
        parameterisation: Parameterisation | None = None,
        num_classes: int | None = None,
        weights: bool = True,
    ):
        if (path is None) == (config is None):
            raise SpecError("teacher hf-masked-lm: name either `path` (a folder or a hub name) or `config`")
        if num_classes is not None:
            raise SpecError("teacher hf-masked-lm takes no class labels; the data have some")
        if trust_remote_code not in (None, path):
            raise SpecError(f"teacher.trust_remote_code: {trust_remote_code!r} is not the repository of path, {path!r}")
        self.process, self.num_positions = process, num_positions
        self.parameterisation = parameterisation or Subs(process)
        folder = None if path is None else folder_of(path, revision)
        self.config = dict(config) if folder is None else model_config(folder, model_type)
        vocabulary = {} if folder is None else token_ids(folder, trust_remote_code is not None)
        if not isinstance(self.config.get("model_type"), str):
            raise SpecError("teacher.config: model_type is missing: a name such as bert")
        self._check_mask(folder, vocabulary, mask_token)
        self.frame = [_ids(tokens, vocabulary, key) for key, tokens in (("before", before), ("after", after))]
        files = folder if weights else None
        kind, trusted = getattr(torch, dtype), trust_remote_code is not None
        options = with_dropout(self.config, dropout)
        if self.config["model_type"] in FAMILIES:
            network, readout, shifted = _family(options, files, kind)
        else:
            network, readout, shifted = _transformers(options, files, kind, trusted, dropout)
        if activation_checkpointing:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        self.backbone = self._backbone(network, readout, shifted)

    def portable_entry(self, entry: dict) -> dict:
        """The entry with the configuration and token ids instead of the folder: an export carries the weights itself."""
        gone = ("path", "revision", "model_type", "mask_token", "trust_remote_code")
        kept = {key: value for key, value in entry.items() if key not in gone}
        before, after = self.frame
        config = {**self.config, "mask_token_id": self.process.mask_index}
        return {**kept, "config": config, "before": before, "after": after}

    def _backbone(self, network: nn.Module, readout: nn.Linear | None, shifted: bool) -> MaskedLM:
        rows = readout.out_features if readout is not None else network.config.vocab_size
        if rows < self.process.num_states:
            raise SpecError(
                f"teacher: its vocabulary has {rows} tokens, the data and the mask {self.process.num_states} states; "
                "let data.tokenizer name the teacher's own tokenizer"
            )
        before, after = self.frame
        states = self.process.num_states
        backbone = MaskedLM(network, states, readout=readout, before=before, after=after, shifted=shifted)
        backbone.check_length(self.num_positions)
        return backbone

    def _check_mask(self, folder: Path | None, vocabulary: Mapping[str, int], mask_token: str | None) -> None:
        if folder is None and type(self.config.get("mask_token_id")) is not int:
            raise SpecError("teacher.config: mask_token_id is missing: a whole number")
        mask = self.config["mask_token_id"] if folder is None else mask_id(folder, self.config, vocabulary, mask_token)
        if self.process.mask_index != mask:
            raise SpecError(
                f"process.mask_index: {self.process.mask_index}, but the teacher's mask token is {mask} ({folder or 'config'}); "
                f"write process: {{name: absorbing, mask_index: {mask}}}"
            )


def with_dropout(config: Mapping[str, Any], dropout: float | None) -> dict[str, Any]:
    """The configuration with every dropout probability replaced, unless dropout is None."""
    if dropout is None:
        return dict(config)
    return {key: dropout if _is_dropout(key, value) else value for key, value in config.items()}


def _is_dropout(key: str, value: Any) -> bool:
    # ESM's token_dropout is a switch
    return "dropout" in key and isinstance(value, int | float) and not isinstance(value, bool)


def _ids(tokens: list[str | int] | None, vocabulary: Mapping[str, int], option: str) -> list[int]:
    return [token if isinstance(token, int) else token_id(token, vocabulary, option) for token in tokens or []]


def _family(config: Mapping[str, Any], folder: Path | None, dtype: torch.dtype) -> tuple[nn.Module, nn.Linear, bool]:
    """LLaDA or Dream: (network, output layer, shifted), streamed from the folder if there is one."""
    if folder is None:
        family, network, readout = family_network(config)
        return network.to(dtype), readout.to(dtype), family.shifted
    with torch.device("meta"):
        family, network, readout = family_network(config)
    network.rotary_emb = type(network.rotary_emb)(network.config)  # its tables are computed, not loaded
    check_rotation(network, float(config["rope_theta"]))
    both = nn.ModuleDict({"network": network, "readout": readout})

    def rename(name: str) -> str:
        name = family.renamed(name)
        return name if name.startswith("readout.") else f"network.{name}"

    load_streamed(both, folder, rename, dtype)
    return network, both["readout"], family.shifted


def _transformers(
    config: Mapping[str, Any], folder: Path | None, dtype: torch.dtype, trusted: bool, dropout: float | None = None
) -> tuple[nn.Module, nn.Linear | None, bool]:
    """Any model that transformers has for masked language modelling: (network, output layer or None, False)."""
    from transformers import AutoConfig, AutoModelForMaskedLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    options = {key: value for key, value in config.items() if key not in ("model_type", "mask_token_id")}
    try:
        own_code = folder is not None and trusted and "auto_map" in config
        if own_code:
            full = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        else:
            options.pop("auto_map", None)
            full = AutoConfig.for_model(config["model_type"], **options)
        for key, value in with_dropout(full.to_dict(), dropout).items():
            if _is_dropout(key, value):  # those too that config.json leaves to their defaults
                setattr(full, key, value)
        if folder is None:
            made = AutoModelForMaskedLM.from_config(full, dtype=dtype)
        else:
            made = _strictly(folder, dtype, config=full, **({"trust_remote_code": True} if own_code else {}))
        require_finite(made.state_dict(), str(folder or "teacher.config"), dict(made.named_buffers()))
        return made, split_output_head(made), False
    except Di4CError:
        raise
    except Exception as error:  # each model class checks its options in its own way
        known = config["model_type"] in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        told = (
            "cannot be built of its configuration" if known else "is unknown as a masked language model to transformers"
        )
        raise SpecError(
            f"teacher: {folder or 'config'}: type {config['model_type']!r} {told} ({first_line(error)})"
            + ("" if known else "; if its repository brings code of its own, name it in trust_remote_code")
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and tables: what the files lack is an error here, and other heads' weights are no matter."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _strictly(folder: Path, dtype: torch.dtype, **options: Any) -> nn.Module:
    """transformers' from_pretrained, which streams shards; a weight that the files lack is an error, not a random one."""
    from safetensors import SafetensorError
    from transformers import AutoModelForMaskedLM

    for file in WEIGHT_FILES:
        if (folder / file).exists():
            require_whole(folder / file)
    try:
        with _quiet():
            made, info = AutoModelForMaskedLM.from_pretrained(folder, dtype=dtype, output_loading_info=True, **options)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: transformers cannot load it ({first_line(error)})") from error
    lacking = [*info.get("missing_keys", ()), *(key for key, *_ in info.get("mismatched_keys", ()))]
    if lacking:
        raise CheckpointError(
            f"{folder}: {len(lacking)} weights of the network are missing or misshapen, first {min(lacking)}"
        )
    return made
