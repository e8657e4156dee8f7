"""LLaDA and Dream on transformers' own Llama and Qwen2, made bidirectional: no code of a hub is run.

LLaDA (Nie et al. 2025): Llama's blocks under OLMo's names. Dream (Ye et al. 2025): Qwen2, whose position d is predicted from
the hidden state of d − 1.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from di4c.contracts.weight_files import first_line
from di4c.errors import SpecError


@dataclass(frozen=True)
class Family:
    """How a family's files become a transformers network.

    renames: (pattern, replacement) of the files' tensor names; the network's names have no prefix, the output head's are
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
NEEDED = "install transformers 5: older versions read other names of these options"
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
    family = FAMILIES[config["model_type"]]
    try:
        options = _llada_options(config) if family is LLADA else _dream_options(config)
        network = _bidirectional(family.network, options)
        theta = float(config["rope_theta"])
    except KeyError as error:
        raise SpecError(f"teacher: the configuration of {config['model_type']} does not say {error.args[0]}") from error
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise SpecError(
            f"teacher: no network can be made of the configuration of {config['model_type']} ({first_line(error)})"
        ) from error
    _check_transformers(family.network)
    check_rotation(network, theta)
    return family, network, nn.Linear(network.config.hidden_size, network.config.vocab_size, bias=False)


def check_rotation(network: nn.Module, theta: float) -> None:
    """Raises SpecError unless the network turns pair i of a head of width W by θ^(−2i/W) a position, with this θ."""
    table = network.rotary_emb.inv_freq
    if table.is_meta:
        return
    expected = theta ** (-torch.arange(len(table), dtype=torch.float64) / len(table))
    if not torch.allclose(table.double().cpu(), expected, rtol=1e-5, atol=0):
        found = float(table[1].double() ** -len(table)) if len(table) > 1 else float("nan")
        raise SpecError(f"teacher: rope_theta is {theta:g}, but the network was built with {found:g}; {NEEDED}")


def _bidirectional(name: str, options: Mapping[str, Any]) -> nn.Module:
    import transformers

    network = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**options))
    network.config.is_causal = False
    for layer in network.layers:
        layer.self_attn.is_causal = False
    return network


@functools.cache
def _check_transformers(name: str) -> None:
    """Raises SpecError unless the first position of a small network of this kind sees the second: seen by running it."""
    sizes = {
        "vocab_size": 4,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    rotation = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        network = _bidirectional(name, sizes | {"num_key_value_heads": 2, "use_cache": False} | rotation).eval()
        a, b = (network(input_ids=torch.tensor([[0, other]])).last_hidden_state[0, 0] for other in (1, 2))
    if torch.equal(a, b):
        raise SpecError(f"teacher: {name} of the installed transformers attends to earlier positions alone; {NEEDED}")


def _llada_options(config: Mapping[str, Any]) -> dict[str, Any]:
    for key, expected in LLADA_LAYOUT.items():
        if config.get(key, expected) != expected:
            raise SpecError(
                f"teacher: LLaDA's {key} is {config[key]!r}; only {expected!r} (the published models') is known here"
            )
    width = int(config["d_model"])
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
    return options | {
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]},
        "use_cache": False,
    }
