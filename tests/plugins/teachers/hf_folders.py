"""Tiny models in the layouts of published ones, with random weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"CNO()=#123"]
MASK = VOCABULARY.index("[MASK]")
BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 20,
    "vocab_size": len(VOCABULARY), "type_vocab_size": 2, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
}  # fmt: skip
DREAM = {
    "model_type": "Dream", "vocab_size": 24, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "hidden_act": "silu", "attention_dropout": 0.0, "tie_word_embeddings": False, "mask_token_id": 20,
    "auto_map": {"AutoModel": "modeling_dream.DreamModel"},
}  # fmt: skip
LLADA = {
    "model_type": "llada", "vocab_size": 22, "embedding_size": 24, "d_model": 16, "n_heads": 4, "n_kv_heads": 4, "n_layers": 2,
    "mlp_hidden_size": 24, "max_sequence_length": 64, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "block_type": "llama",
    "activation_type": "silu", "layer_norm_type": "rms", "rope": True, "alibi": False, "mask_token_id": 20,
}  # fmt: skip


def bert_folder(folder: Path, *, told: bool = True) -> BertForMaskedLM:
    """Saves a tiny BERT with its vocabulary; `told`: whether config.json says what it is. Returns it, in evaluation mode."""
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**BERT)).eval()
    torch.nn.init.normal_(model.get_output_embeddings().bias)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    if not told:
        config = json.loads((folder / "config.json").read_text())
        del config["model_type"]
        (folder / "config.json").write_text(json.dumps(config))
    return model


def dream_folder(folder: Path) -> Qwen2ForCausalLM:
    """Saves a tiny Dream in several shards. Returns Qwen2 with its weights, which is causal unless a mask says otherwise."""
    torch.manual_seed(1)
    same = {
        key: value
        for key, value in DREAM.items()
        if key not in ("model_type", "rope_theta", "mask_token_id", "auto_map")
    }
    parameters = {"rope_type": "default", "rope_theta": DREAM["rope_theta"]}
    model = Qwen2ForCausalLM(Qwen2Config(**same, rope_parameters=parameters, attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size="8KB")
    described(folder, DREAM)
    return model


def llada_folder(folder: Path) -> dict[str, torch.Tensor]:
    """Saves a tiny LLaDA under OLMo's names. Returns its tensors."""
    generator = torch.Generator().manual_seed(2)
    width, hidden = LLADA["d_model"], LLADA["mlp_hidden_size"]
    shapes = {"wte.weight": (24, width), "ln_f.weight": (width,), "ff_out.weight": (24, width)}
    for n in range(LLADA["n_layers"]):
        block = {"attn_norm": (width,), "ff_norm": (width,), "ff_proj": (hidden, width), "up_proj": (hidden, width)}
        block |= {"ff_out": (width, hidden)} | dict.fromkeys(("q_proj", "k_proj", "v_proj", "attn_out"), (width, width))
        shapes |= {f"blocks.{n}.{name}.weight": shape for name, shape in block.items()}
    tensors = {f"model.transformer.{n}": 0.5 * torch.randn(s, generator=generator) for n, s in shapes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    described(folder, LLADA)
    return tensors


def described(folder: Path, config: dict) -> None:
    """Writes config.json and a vocabulary."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps({f"t{i}": i for i in range(22)}))
