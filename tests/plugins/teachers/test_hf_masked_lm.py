"""Masked language models of transformers: equal to the library's own logits, and to LLaDA's and Dream's equations."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

pytest.importorskip("transformers")
from di4c.contracts import Draws, strict_load
from di4c.errors import CheckpointError, SpecError
from di4c.testing import check_backbone, check_head, check_teacher
from di4c_plugins.backbones import hf_families
from di4c_plugins.backbones.hf import usable_positions
from di4c_plugins.heads.readout import Readout
from di4c_plugins.heads.token import Token
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.teachers.hf_files import token_ids
from di4c_plugins.teachers.hf_masked_lm import HFMaskedLM
from tests.plugins.teachers.hf_folders import (
    BERT,
    DREAM,
    LLADA,
    MASK,
    VOCABULARY,
    bert_folder,
    described,
    dream_folder,
    llada_folder,
)

D, S = 8, len(VOCABULARY)
T = torch.full((2,), 0.5)


def tokens(states: int = S) -> torch.Tensor:
    return Draws(0, count=2).integers(states, D)


def logits_of(teacher: HFMaskedLM, x: torch.Tensor) -> torch.Tensor:
    """What the backbone reads out at every position: [B, D, S]."""
    with torch.no_grad():
        h = teacher.freeze().backbone(x, T).flatten(0, 1)[:, None]
        rows = torch.arange(x.numel())
        return teacher.backbone.readout(h, rows % D, x.flatten())[:, 0].unflatten(0, x.shape)


def bert_teacher(folder: Path, **options) -> HFMaskedLM:
    return HFMaskedLM(Absorbing(S, mask_index=MASK), D, path=str(folder), **options)


def test_bert_gives_the_librarys_logits_between_its_frame(tmp_path):
    model = bert_folder(tmp_path)
    teacher = bert_teacher(tmp_path, before=["[CLS]"], after=["[SEP]"])
    x = tokens()
    framed = torch.cat([torch.full((2, 1), 2), x, torch.full((2, 1), 3)], dim=1)
    with torch.no_grad():
        expected = model(input_ids=framed).logits[:, 1:-1]
    torch.testing.assert_close(logits_of(teacher, x), expected, rtol=1e-5, atol=1e-5)
    assert teacher.backbone.readout.affine and teacher.backbone.width == BERT["hidden_size"]


def test_bert_holds_the_contracts_of_teacher_backbone_and_the_heads_it_accepts(tmp_path):
    bert_folder(tmp_path)
    teacher = bert_teacher(tmp_path, before=["[CLS]"])
    check_teacher(teacher)
    check_backbone(teacher.backbone, num_positions=D, num_states=S)
    for head in (Token, Readout):
        options = {"rank": 4} if head is Readout else {}
        check_head(head(1, teacher.backbone, **options), teacher.backbone, latent_dim=1, teacher=teacher)


def test_config_without_a_model_type_needs_the_option(tmp_path):
    bert_folder(tmp_path, told=False)
    with pytest.raises(SpecError, match="model_type.*e.g. bert"):
        bert_teacher(tmp_path)
    assert bert_teacher(tmp_path, model_type="bert").backbone.depth == 2


def test_the_process_must_mask_with_the_tokenizers_mask(tmp_path):
    bert_folder(tmp_path)
    with pytest.raises(SpecError, match=f"mask_index: {MASK}"):
        HFMaskedLM(Absorbing(S), D, path=str(tmp_path))
    with pytest.raises(SpecError, match="has 15 tokens.*17 states"):
        HFMaskedLM(Absorbing(17, mask_index=MASK), D, path=str(tmp_path))
    with pytest.raises(SpecError, match="20 positions"):
        HFMaskedLM(Absorbing(S, mask_index=MASK), 20, path=str(tmp_path))


def test_an_export_rebuilds_the_network_without_the_folder(tmp_path):
    bert_folder(tmp_path)
    teacher = bert_teacher(tmp_path, before=["[CLS]"], dropout=0.0)
    entry = teacher.portable_entry({"name": "hf-masked-lm", "path": str(tmp_path), "before": ["[CLS]"], "dropout": 0.0})
    assert "path" not in json.dumps(entry) or str(tmp_path) not in json.dumps(entry)
    del entry["name"]
    again = HFMaskedLM(teacher.process, D, weights=False, **json.loads(json.dumps(entry)))
    strict_load(again.backbone, teacher.backbone.state_dict(), "export")
    torch.testing.assert_close(logits_of(again, tokens()), logits_of(teacher, tokens()))


def test_missing_weights_are_an_error(tmp_path):
    bert_folder(tmp_path)
    from safetensors.torch import load_file, save_file

    held = load_file(tmp_path / "model.safetensors")
    del held["bert.encoder.layer.1.output.dense.weight"]
    save_file(held, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="layer.1.output.dense.weight"):
        bert_teacher(tmp_path)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "albert", "esm", "modernbert"])
def test_other_architectures_read_out_their_own_logits(name):
    options = {
        "vocab_size": 30,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    options |= {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24, "embedding_size": 16, "pad_token_id": 0}
    options |= {
        "global_attn_every_n_layers": 1,
        "mask_token_id": 7,
        "token_dropout": False,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }
    options |= {"position_embedding_type": "absolute", "max_position_embeddings": 40}
    teacher = HFMaskedLM(Absorbing(30, mask_index=7), D, config={"model_type": name, **options}).freeze()
    check_backbone(teacher.backbone, num_positions=D, num_states=30)
    whole = name == "esm"  # adds its bias outside of the layer
    assert teacher.backbone.accepts == (frozenset() if whole else frozenset({"tokens"}))
    assert teacher.backbone.width == (30 if whole else 16)


POSITIONED = {
    "roberta": 32, "bert": 34, "camembert": 32, "mpnet": 32, "esm": 32, "ibert": 32, "data2vec-text": 32, "luke": 32,
    "longformer": 32, "xlm-roberta": 32, "xlm-roberta-xl": 32, "roberta-prelayernorm": 32, "distilbert": 34, "albert": 34,
    "electra": 34, "deberta-v2": 34, "convbert": 34, "mobilebert": 34, "xlm": 34, "layoutlm": 34, "fnet": 34, "bart": 34,
}  # fmt: skip
"""The longest sequence of each kind of network with 34 positions, as its forward pass has it."""
USUAL = ("roberta", "bert", "mpnet", "esm")


@pytest.mark.parametrize("name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in POSITIONED])
def test_trouble_18_the_longest_sequence_is_what_the_forward_pass_takes(name):
    from transformers import AutoConfig, AutoModelForMaskedLM

    config = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    config |= {
        "dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "hidden_dim": 24,
        "embedding_size": 16,
        "max_position_embeddings": 34,
    }
    config |= {
        "pad_token_id": 1,
        "token_dropout": False,
        "mask_token_id": 7,
        "emb_dim": 16,
        "d_model": 16,
        "encoder_layers": 1,
    }
    config |= {
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    config |= {"position_embedding_type": "absolute"} if name == "esm" else {}
    network = AutoModelForMaskedLM.from_config(AutoConfig.for_model(name, **config)).eval()
    most = POSITIONED[name]
    assert usable_positions(network) == most
    with torch.no_grad():
        assert network(input_ids=torch.full((1, most), 5)).logits.shape[1] >= most
        with pytest.raises((IndexError, RuntimeError)):
            network(input_ids=torch.full((1, most + 1), 5))


@pytest.mark.parametrize(("length", "frame"), [(33, 0), (32, 0), (31, 1)])
def test_trouble_18_a_sequence_that_is_too_long_is_refused_with_the_usable_number(length, frame):
    config = {
        "model_type": "roberta", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 34, "pad_token_id": 1, "mask_token_id": 7,
    }  # fmt: skip
    process = Absorbing(40, mask_index=7)
    with pytest.raises(
        SpecError, match=f"{length + frame} tokens a sequence and 1 for λ, but the network has 32 positions"
    ):
        HFMaskedLM(process, length, config=config, before=[0] * frame)
    assert HFMaskedLM(process, 31 - frame, config=config, before=[0] * frame).backbone.depth == 1


def test_dream_reads_position_d_from_the_hidden_state_before_it(tmp_path):
    model = dream_folder(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    teacher = HFMaskedLM(Absorbing(22, mask_index=20), D, path=str(tmp_path))
    x = tokens(22)
    everything = torch.zeros(2, 1, D, D)  # an additive mask that forbids nothing: bidirectional attention
    with torch.no_grad():
        unshifted = model(input_ids=x, attention_mask=everything).logits
        causal = model(input_ids=x).logits
    expected = torch.cat([unshifted[:, :1], unshifted[:, :-1]], dim=1)[..., :22]
    found = logits_of(teacher, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (causal - unshifted).abs().max() > 0.1 and (found - unshifted[..., :22]).abs().max() > 0.1
    check_head(Token(1, teacher.backbone), teacher.backbone, latent_dim=1, teacher=teacher)


def test_dream_with_a_token_in_front_reads_the_first_position_from_it(tmp_path):
    model = dream_folder(tmp_path)
    teacher = HFMaskedLM(Absorbing(22, mask_index=20), D, path=str(tmp_path), before=["t3"])
    x = tokens(22)
    framed = torch.cat([torch.full((2, 1), 3), x], dim=1)
    with torch.no_grad():
        expected = model(input_ids=framed, attention_mask=torch.zeros(2, 1, D + 1, D + 1)).logits[:, :-1, :22]
    torch.testing.assert_close(logits_of(teacher, x), expected, rtol=1e-4, atol=1e-4)


def llada_logits(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """LLaDA's equations in plain torch: pre-norm blocks, rotary positions, full attention, SwiGLU: [B, D, 24]."""
    heads, width = LLADA["n_heads"], LLADA["d_model"] // LLADA["n_heads"]
    at = lambda name: w[f"model.transformer.{name}.weight"]
    norm = lambda h, g: g * h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + LLADA["rms_norm_eps"])
    angles = torch.arange(D)[:, None] * LLADA["rope_theta"] ** (-torch.arange(0, width, 2) / width)
    turn = torch.polar(torch.ones_like(angles), angles)

    def rotated(q: torch.Tensor) -> torch.Tensor:
        pairs = torch.complex(*q.chunk(2, dim=-1)) * turn
        return torch.cat([pairs.real, pairs.imag], dim=-1)

    h = at("wte")[x]
    for n in range(LLADA["n_layers"]):
        inner = norm(h, at(f"blocks.{n}.attn_norm"))
        q, k, v = (
            rearrange(inner @ at(f"blocks.{n}.{name}_proj").T, "b d (a w) -> b a d w", a=heads) for name in "qkv"
        )
        weights = (rotated(q) @ rotated(k).transpose(-1, -2) / math.sqrt(width)).softmax(-1)
        h = h + rearrange(weights @ v, "b a d w -> b d (a w)") @ at(f"blocks.{n}.attn_out").T
        inner = norm(h, at(f"blocks.{n}.ff_norm"))
        gated = F.silu(inner @ at(f"blocks.{n}.ff_proj").T) * (inner @ at(f"blocks.{n}.up_proj").T)
        h = h + gated @ at(f"blocks.{n}.ff_out").T
    return norm(h, at("ln_f")) @ at("ff_out").T


def test_llada_computes_its_equations(tmp_path):
    weights = llada_folder(tmp_path)
    teacher = HFMaskedLM(Absorbing(22, mask_index=20), D, path=str(tmp_path))
    x = tokens(22)
    torch.testing.assert_close(logits_of(teacher, x), llada_logits(weights, x)[..., :22], rtol=1e-4, atol=1e-4)
    check_teacher(teacher)
    check_head(Readout(1, teacher.backbone, rank=4), teacher.backbone, latent_dim=1, teacher=teacher)


def test_llada_of_another_layout_is_refused():
    with pytest.raises(SpecError, match="include_bias is True"):
        HFMaskedLM(Absorbing(22, mask_index=20), D, config={**LLADA, "include_bias": True})


def test_rotary_tables_stay_exact_when_the_weights_are_cast():
    teacher = HFMaskedLM(Absorbing(22, mask_index=20), D, config=LLADA)
    table = teacher.backbone.network.rotary_emb.inv_freq.clone()
    teacher.backbone.bfloat16()
    assert teacher.backbone.network.norm.weight.dtype == torch.bfloat16
    assert torch.equal(teacher.backbone.network.rotary_emb.inv_freq, table) and table.dtype == torch.float32


@pytest.mark.parametrize("config", [LLADA, DREAM])
def test_trouble_b01_a_transformers_that_drops_theta_is_told(config, monkeypatch):
    """Version 4 knows rope_theta and not rope_parameters: what it does not know it ignores."""
    family = "_llada_options" if config is LLADA else "_dream_options"
    options = getattr(hf_families, family)

    def older(config):
        made = options(config)
        rotation = made.pop("rope_parameters")
        return made | {"rope_parameters": rotation | {"rope_theta": 20000.0}}

    monkeypatch.setattr(hf_families, family, older)
    with pytest.raises(
        SpecError, match=f"rope_theta is {config['rope_theta']:g}, but .* with 20000; install transformers 5"
    ):
        HFMaskedLM(Absorbing(22, mask_index=20), D, config=config)


def test_trouble_b01_theta_is_checked_after_weights_are_streamed_too(tmp_path, monkeypatch):
    llada_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**LLADA, "rope_theta": 12345.0}))
    teacher = HFMaskedLM(Absorbing(22, mask_index=20), D, path=str(tmp_path))
    expected = 12345.0 ** (-torch.arange(2) / 2)
    torch.testing.assert_close(teacher.backbone.network.rotary_emb.inv_freq, expected)


@pytest.mark.parametrize("name", ["Llama", "Qwen2"])
def test_trouble_b01_a_transformers_that_stays_causal_is_told(name, monkeypatch):
    import transformers

    def causal(name, options):
        return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**options))

    hf_families._check_transformers.cache_clear()
    monkeypatch.setattr(hf_families, "_bidirectional", causal)
    with pytest.raises(SpecError, match=f"{name} of the installed transformers attends to earlier positions alone"):
        hf_families._check_transformers(name)
    monkeypatch.undo()
    hf_families._check_transformers(name)


def test_the_random_numbers_of_a_family_do_not_depend_on_its_checks():
    drawn = []
    for clear in (True, False):
        if clear:
            hf_families._check_transformers.cache_clear()
        torch.manual_seed(0)
        drawn.append(HFMaskedLM(Absorbing(22, mask_index=20), D, config=LLADA).backbone.readout.weight)
    assert torch.equal(*drawn)


def test_trouble_24_a_line_of_vocab_txt_ends_at_a_line_feed_alone(tmp_path):
    bert_folder(tmp_path)
    tokens = [*VOCABULARY[:5], "\u2028", "\x85", "\x0c", *VOCABULARY[8:]]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", newline="")
    assert token_ids(tmp_path) == {token: i for i, token in enumerate(tokens)}


@pytest.mark.parametrize("make", [bert_folder, dream_folder, llada_folder])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_trouble_31_weights_that_are_no_numbers_are_refused_by_name(tmp_path, make, value):
    make(tmp_path)
    shard = max(tmp_path.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    with safe_open(shard, "pt") as file:
        held = {key: file.get_tensor(key) for key in file.keys()}
    name = max(held, key=lambda key: held[key].numel())
    held[name].view(-1)[3] = value
    save_file(held, shard, {"format": "pt"})
    states, mask = (S, MASK) if make is bert_folder else (22, 20)
    with pytest.raises(CheckpointError, match="holds NaN or infinite"):
        HFMaskedLM(Absorbing(states, mask_index=mask), D, path=str(tmp_path))


@pytest.mark.parametrize("config", [{**BERT, "model_type": "bert", "mask_token_id": 20, "vocab_size": 24}, DREAM])
def test_trouble_b03_attention_drops_by_a_module_with_the_librarys_numbers(config):
    """With masks that keep everything, attention in training is that of the library; masks belong to examples (check_backbone)."""
    torch.manual_seed(0)
    backbone = HFMaskedLM(Absorbing(24, mask_index=20), D, config=config, dropout=0.3).backbone
    check_backbone(backbone, num_positions=D, num_states=24)
    x = tokens(20)
    expected = backbone.eval()(x, T)
    assert (backbone.train()(x, T) - expected).abs().max() > 1e-3
    for module in backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.forward = lambda given: given
    torch.testing.assert_close(backbone(x, T), expected)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_replaces_the_probabilities_that_a_configuration_leaves_to_defaults_too(stated, dropout):
    config = {key: value for key, value in BERT.items() if stated or "dropout" not in key} | {
        "model_type": "bert",
        "mask_token_id": MASK,
    }
    network = HFMaskedLM(Absorbing(S, mask_index=MASK), D, config=config, dropout=dropout).backbone.network
    assert {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)} == {dropout}
    assert network.config.attention_probs_dropout_prob == dropout


def test_a_switch_is_no_dropout_probability():
    config = {
        "model_type": "esm", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 1,
        "intermediate_size": 24, "max_position_embeddings": 40, "mask_token_id": 7, "token_dropout": False,
    }  # fmt: skip
    network = HFMaskedLM(Absorbing(30, mask_index=7), D, config=config, dropout=0.3).backbone.network
    assert network.config.token_dropout is False


def test_a_lacking_shard_and_a_foreign_tensor_are_named(tmp_path):
    dream_folder(tmp_path)
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"no {shard.name}"):
        HFMaskedLM(Absorbing(22, mask_index=20), D, path=str(tmp_path))
    (tmp_path / "elsewhere").rename(shard)
    config = {**DREAM, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="layers.1"):
        HFMaskedLM(Absorbing(22, mask_index=20), D, path=str(tmp_path))


CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import BertConfig, BertForMaskedLM
class StrangeConfig(BertConfig):
    model_type = "strange"
class Strange(BertForMaskedLM):
    config_class = StrangeConfig
"""


def test_code_of_a_repository_runs_only_where_the_spec_names_it(tmp_path, monkeypatch):
    bert_folder(tmp_path)
    marker = tmp_path / "marker"
    (tmp_path / "strange.py").write_text(CODE.format(marker=str(marker)))
    config = json.loads((tmp_path / "config.json").read_text())
    auto_map = {"AutoConfig": "strange.StrangeConfig", "AutoModelForMaskedLM": "strange.Strange"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "strange", "auto_map": auto_map}))
    with pytest.raises(SpecError, match="trust_remote_code"):
        bert_teacher(tmp_path)
    with pytest.raises(SpecError, match="is not the repository of path"):
        bert_teacher(tmp_path, trust_remote_code="someone/else")
    assert not marker.exists()
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "modules")])
    teacher = bert_teacher(tmp_path, trust_remote_code=str(tmp_path))
    assert marker.exists() and type(teacher.backbone.network).__name__ == "Strange"


@pytest.mark.slow
@pytest.mark.skipif("DI4C_RXNFP" not in os.environ, reason="DI4C_RXNFP names no folder of the rxnfp model")
def test_rxnfp_knows_chemistry():
    """The pretrained reaction model fills one masked token of a SMILES string far better than chance."""
    teacher = HFMaskedLM(
        Absorbing(591, mask_index=14),
        12,
        path=os.environ["DI4C_RXNFP"],
        model_type="bert",
        before=["[CLS]"],
        after=["[SEP]"],
    ).freeze()
    names = (Path(os.environ["DI4C_RXNFP"]) / "vocab.txt").read_text().splitlines()
    x_0 = torch.tensor([[names.index(token) for token in "CC(=O)c1ccccc1"[:12]]])
    log_p = []
    for d in range(12):
        x_t = x_0.clone()
        x_t[0, d] = 14
        log_p.append(teacher.predict(x_t, T[:1]).log_probs(torch.tensor([d]))[0, 0, x_0[0, d]])
    assert torch.stack(log_p).mean() > -1.5  # chance is −log 591 = −6.4


LOADING = """
import resource, sys
from pathlib import Path
from di4c.torchvision_compat import declare_missing_operators
declare_missing_operators()
import transformers, torch
from transformers import LlamaModel
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.teachers.hf_masked_lm import HFMaskedLM
status = lambda key: next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key)) * 1024
idle = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
teacher = HFMaskedLM(Absorbing(22, mask_index=20), 8, path=sys.argv[1])
size = sum(p.numel() * p.element_size() for p in teacher.backbone.parameters())
print((status("VmHWM") - idle) / size)
"""


@pytest.mark.slow
def test_shards_load_without_a_second_copy_in_memory(tmp_path):
    """110 million parameters in 16 shards: the peak is one copy and the shard that is being read."""
    config = {**LLADA, "d_model": 1024, "mlp_hidden_size": 8192, "n_layers": 4, "n_heads": 8, "n_kv_heads": 8}
    shapes = {"wte.weight": (24, 1024), "ln_f.weight": (1024,), "ff_out.weight": (24, 1024)}
    files = []
    for n in range(4):
        square, norms = ("q_proj", "k_proj", "v_proj", "attn_out"), ("attn_norm", "ff_norm")
        files.append(
            {f"blocks.{n}.{name}.weight": (1024, 1024) for name in square}
            | {f"blocks.{n}.{m}.weight": (1024,) for m in norms}
        )
        files += [{f"blocks.{n}.{name}.weight": (8192, 1024)} for name in ("ff_proj", "up_proj")]
        files.append({f"blocks.{n}.ff_out.weight": (1024, 8192)})
    weight_map = {}
    for number, held in enumerate([{**files[0], **shapes}, *files[1:]]):
        tensors = {f"model.transformer.{name}": torch.zeros(shape) for name, shape in held.items()}
        save_file(tensors, tmp_path / f"model-{number:05d}.safetensors")
        weight_map |= dict.fromkeys(tensors, f"model-{number:05d}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    described(tmp_path, config)
    ended = subprocess.run([sys.executable, "-c", LOADING, str(tmp_path)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.split()[-1]) < 1.25
