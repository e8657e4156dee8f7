"""LLaDA and Dream on transformers' own Llama and Qwen2, made bidirectional: no code of a hub is run.

LLaDA (Nie et al. 2025): Llama's blocks under OLMo's names. Dream (Ye et al. 2025): Qwen2, whose position d is predicted from
the hidden state of d − 1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from di4c.errors import SpecError


@dataclass(frozen=True)
class Family:
    """How a family's files become a transformers network.

    renames: (pattern, replacement) of the files' tensor names; the network's names have no prefix, the readout's are
    "readout.…". shifted: whether position d is read from the hidden state of d − 1.
    """

    network: str
    renames: tuple[tuple[str, str], ...]
    shifted: bool

    def renamed(self, name: str) -> str:
        """The name here of a tensor in a file."""
        for pattern, replacement in self.renames:
            name, count = re.subn(pattern, replacement, name)
            if count:
                return name
        return name


LLADA = Family(
    "Llama",
    (
        (r"^model\.transformer\.wte\.", "embed_tokens."),
        (r"^model\.transformer\.ln_f\.", "norm."),
        (r"^model\.transformer\.ff_out\.", "readout."),
        (r"^model\.transformer\.blocks\.(\d+)\.attn_norm\.", r"layers.\1.input_layernorm."),
        (r"^model\.transformer\.blocks\.(\d+)\.ff_norm\.", r"layers.\1.post_attention_layernorm."),
        (r"^model\.transformer\.blocks\.(\d+)\.([qkv])_proj\.", r"layers.\1.self_attn.\2_proj."),
        (r"^model\.transformer\.blocks\.(\d+)\.attn_out\.", r"layers.\1.self_attn.o_proj."),
        (r"^model\.transformer\.blocks\.(\d+)\.ff_proj\.", r"layers.\1.mlp.gate_proj."),
        (r"^model\.transformer\.blocks\.(\d+)\.up_proj\.", r"layers.\1.mlp.up_proj."),
        (r"^model\.transformer\.blocks\.(\d+)\.ff_out\.", r"layers.\1.mlp.down_proj."),
    ),
    shifted=False,
)
DREAM = Family("Qwen2", ((r"^lm_head\.", "readout."), (r"^model\.", "")), shifted=True)
FAMILIES: Mapping[str, Family] = {"llada": LLADA, "Dream": DREAM}
"""By the `model_type` of config.json."""

LLADA_LAYOUT = {
    "block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms", "rope": True, "alibi": False,
    "attention_layer_norm": False, "include_bias": False, "include_qkv_bias": False, "input_emb_norm": False,
    "scale_logits": False, "weight_tying": False, "clip_qkv": None,
}  # fmt: skip
"""What LLaDA's configuration could say, and what its published models say."""


def family_network(config: Mapping[str, Any]) -> tuple[Family, nn.Module, nn.Linear]:
    """(family, bidirectional network without output layer, output layer) of a configuration, randomly initialised.

    Raises SpecError for a configuration that is not of the published layout.
    """
    from transformers import LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

    family = FAMILIES[config["model_type"]]
    if family is LLADA:
        network = LlamaModel(LlamaConfig(**_llada_options(config)))
    else:
        network = Qwen2Model(Qwen2Config(**_dream_options(config)))
    network.config.is_causal = False
    for layer in network.layers:
        layer.self_attn.is_causal = False
    return family, network, nn.Linear(network.config.hidden_size, network.config.vocab_size, bias=False)


def _llada_options(config: Mapping[str, Any]) -> dict[str, Any]:
    for key, expected in LLADA_LAYOUT.items():
        if config.get(key, expected) != expected:
            raise SpecError(f"teacher: LLaDA's {key} is {config[key]!r}; only {expected!r} (the published models') is known here")
    width = config["d_model"]
    return {
        "vocab_size": config.get("embedding_size") or config["vocab_size"],
        "hidden_size": width,
        "intermediate_size": config.get("mlp_hidden_size") or config["mlp_ratio"] * width,
        "num_hidden_layers": config["n_layers"],
        "num_attention_heads": config["n_heads"],
        "num_key_value_heads": config.get("n_kv_heads") or config["n_heads"],
        "max_position_embeddings": config["max_sequence_length"],
        "rms_norm_eps": config["rms_norm_eps"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]},
        "use_cache": False,
    }


def _dream_options(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("tie_word_embeddings") or config.get("use_sliding_window") or config.get("rope_scaling"):
        raise SpecError("teacher: Dream with tied embeddings, sliding windows or scaled rotations is not known here")
    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "max_position_embeddings", "rms_norm_eps", "hidden_act", "attention_dropout",
    )  # fmt: skip
    options = {key: config[key] for key in same if key in config}
    return options | {"rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]}, "use_cache": False}
