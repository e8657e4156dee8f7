"""MDLM, SDTT and Di4C's language students from small random files of every published layout."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from di4c.errors import CheckpointError, SpecError
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.processes.mdlm import Mdlm as Process
from di4c_plugins.teachers.mdlm import Mdlm, network_state
from di4c_plugins.teachers.sdtt import Di4CText, Sdtt, hub_revision

TOKENS, LENGTH = 11, 6
SIZES = {"width": 32, "depth": 2, "heads": 4, "conditioning_width": 8, "mlp_ratio": 4}


def random_network(seed: int = 0) -> MdlmDiT:
    torch.manual_seed(seed)
    network = MdlmDiT(LENGTH, TOKENS + 1, **SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def published(network: MdlmDiT) -> dict[str, Tensor]:
    """The state as published: names without prefix, the rotary buffer after the embeddings as in its state dicts."""
    state = {key.replace("readout.linear", "output_layer.linear"): value for key, value in network.state_dict().items()}
    first = {key: value for key, value in state.items() if not key.startswith(("blocks", "output"))}
    blocks = {key: value for key, value in state.items() if key.startswith("blocks")}
    norm, linear = "output_layer.norm_final.weight", "output_layer.linear."
    last = {norm: state[norm]}
    last |= {key: value for key, value in state.items() if key.startswith(linear)}
    last |= {key: value for key, value in state.items() if key.startswith("output_layer.adaLN")}
    return {**first, "rotary_emb.inv_freq": torch.ones(4), **blocks, **last}


def projection(seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    head = SinusoidalToken(1, random_network())
    return {key.replace("projection", "latent_projection"): value for key, value in head.state_dict().items()}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def lightning(state: dict[str, Tensor], shadows: list[Tensor]) -> dict:
    hyper = {"config": OmegaConf.create({"model": {"n_heads": 4}}), "tokenizer": Path("gpt2")}
    ema = {"decay": 0.9999, "num_updates": 7, "shadow_params": shadows}
    return {"epoch": 0, "global_step": 5, "state_dict": state, "hyper_parameters": hyper, "ema": ema}


def process() -> Process:
    return Process(TOKENS)


def backbone() -> MdlmDiT:
    return MdlmDiT(LENGTH, TOKENS + 1, **SIZES)


def parameters(state: dict[str, Tensor]) -> list[Tensor]:
    return [value for key, value in state.items() if "inv_freq" not in key]


def agree(a: MdlmDiT, b: MdlmDiT, scale: float = 1.0) -> bool:
    return all(torch.equal(v, b.state_dict()[k] * scale) for k, v in a.state_dict().items())


def test_mdlm_lightning_takes_the_shadows_in_the_published_order(tmp_path):
    network = random_network()
    state = prefixed(published(network), "backbone.") | {"valid_metrics.nll.mean_value": torch.zeros(())}
    shadows = [2 * value for value in parameters(published(network))]
    torch.save(lightning(state, shadows), tmp_path / "mdlm.ckpt")
    averaged = Mdlm(process(), LENGTH, path=str(tmp_path / "mdlm.ckpt"), backbone=backbone())
    raw = Mdlm(process(), LENGTH, path=str(tmp_path / "mdlm.ckpt"), backbone=backbone(), ema=False)
    assert agree(averaged.backbone, network, 2.0)
    assert agree(raw.backbone, network)


def test_shadows_of_a_learnt_noise_schedule_come_after_the_network(tmp_path):
    network = random_network()
    state = prefixed(published(network), "backbone.") | {"noise.a": torch.zeros(1), "noise.b": torch.zeros(1)}
    shadows = [3 * value for value in parameters(published(network))] + [torch.ones(1), torch.ones(1)]
    torch.save(lightning(state, shadows), tmp_path / "mdlm.ckpt")
    assert agree(Mdlm(process(), LENGTH, path=str(tmp_path / "mdlm.ckpt"), backbone=backbone()).backbone, network, 3.0)


def test_buffers_of_another_network_have_no_shadow():
    """A list of shadows holds parameters alone; a buffer between them must not shift it."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    shadows = [torch.full_like(p, i) for i, p in enumerate(network.parameters())]
    buffers = [name for name, _ in network.named_buffers()]
    content = lightning(prefixed(network.state_dict(), "backbone."), shadows)
    state = network_state(content, "x.ckpt", ema=True, buffers=buffers)
    assert all((state[name] == i).all() for i, (name, _) in enumerate(network.named_parameters()))
    assert state.keys() == network.state_dict().keys()
    with pytest.raises(CheckpointError, match="6 EMA shadows for 9 parameters.*a buffer"):
        network_state(content, "x.ckpt", ema=True)


def test_hub_form_sizes_the_network_by_file_and_configuration(tmp_path, monkeypatch):
    network = random_network()
    save_file(prefixed(published(network), "backbone."), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"n_heads": 4, "time_conditioning": False}))
    asked = []

    def download(repo_id, filename, revision):
        asked.append((repo_id, revision))
        if not (tmp_path / filename).exists():
            raise huggingface_hub.errors.EntryNotFoundError(filename)
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    teacher = Mdlm(process(), LENGTH, path="kuleshov-group/mdlm-owt")
    assert agree(teacher.backbone, network)
    assert set(asked) == {("kuleshov-group/mdlm-owt", None)}
    assert teacher.sizes == SIZES | {"time_conditioning": False, "conditioning_grid": 0}
    rebuilt = teacher.portable_entry({"name": "mdlm", "path": "kuleshov-group/mdlm-owt"})
    assert rebuilt["backbone"]["heads"] == 4 and "path" not in rebuilt

    x, t = torch.tensor([[TOKENS, 1, TOKENS, 2, 3, TOKENS]]), torch.tensor([0.5])
    log_p = teacher.freeze().predict(x, t).log_p0()
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(1, LENGTH))
    assert log_p[0, 1, 1] == 0 and log_p[0, 0, TOKENS] < -1e5


def test_sdtt_rounds_are_revisions(tmp_path, monkeypatch):
    network = random_network()
    save_file(prefixed(published(network), "backbone."), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model": {"n_heads": 4}, "T": 1024, "time_conditioning": False}))
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_download",
        lambda repo_id, filename, revision: (
            str(tmp_path / filename) if revision == "baselines_kld_step_60000" else 1 / 0
        ),
    )
    assert agree(Sdtt(process(), LENGTH, round=6).backbone, network)
    assert hub_revision(7, "mse", "md") == "scaling_400k_md_step_70000"
    with pytest.raises(SpecError, match="1 to 7"):
        Sdtt(process(), LENGTH, round=8)
    with pytest.raises(SpecError, match="either `path`"):
        Sdtt(process(), LENGTH)


def test_hub_that_cannot_be_reached_is_an_error_of_the_checkpoint(monkeypatch):
    def download(repo_id, filename, revision):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(CheckpointError, match="the hub did not give revision main"):
        Mdlm(process(), LENGTH, path="owner/name")
    with pytest.raises(CheckpointError, match="no such file or folder"):
        Mdlm(process(), LENGTH, path="./owner/name/deeper.ckpt")


def test_sdtt_checkpoint_with_double_prefixes(tmp_path):
    network = random_network()
    state = prefixed(published(network), "backbone._orig_mod.backbone.")
    torch.save(lightning(state, parameters(published(network))), tmp_path / "sdtt.ckpt")
    assert agree(Sdtt(process(), LENGTH, path=str(tmp_path / "sdtt.ckpt"), backbone=backbone()).backbone, network)


def test_di4c_student_as_teacher_averages_its_components(tmp_path):
    network = random_network()
    state = prefixed(published(network) | projection(), "backbone.")
    torch.save(lightning(state, [2 * v for v in parameters(state)]), tmp_path / "sdtt7-di4c2.ckpt")
    path = str(tmp_path / "sdtt7-di4c2.ckpt")
    teacher = Di4CText(process(), LENGTH, path=path, atoms=3, backbone=backbone()).freeze()
    assert agree(teacher.backbone, network)
    assert torch.equal(teacher.head.projection[2].bias, projection()["latent_projection.2.bias"])

    x, t = torch.full((2, LENGTH), TOKENS), torch.full((2,), 0.9)
    mean = 0
    for lam in (1 / 6, 3 / 6, 5 / 6):
        context = teacher.head.context(torch.full((2, 1, 1), lam))
        logits = teacher.backbone.readout.linear(teacher.backbone(x, t, None, context))[..., :TOKENS]
        mean = mean + logits.softmax(-1) / 3
    torch.testing.assert_close(teacher.predict(x, t).log_p0().exp()[..., :TOKENS], mean.detach(), rtol=1e-4, atol=1e-6)

    averaged = Di4CText(process(), LENGTH, path=path, backbone=backbone(), ema=True)
    assert agree(averaged.backbone, network, 2.0)
    assert torch.equal(averaged.head.projection[2].bias, 2 * projection()["latent_projection.2.bias"])


def test_a_student_of_a_student_starts_from_its_lambda_layers(tmp_path):
    torch.save(prefixed(published(random_network()) | projection(), "backbone."), tmp_path / "student.ckpt")
    teacher = Di4CText(process(), LENGTH, path=str(tmp_path / "student.ckpt"), backbone=backbone()).freeze()
    same, other = SinusoidalToken(1, teacher.backbone), SinusoidalToken(1, teacher.backbone, hidden=16)
    before = other.projection[2].weight.clone()
    teacher.warm_start(same)
    teacher.warm_start(other)
    assert all(torch.equal(value, teacher.head.state_dict()[key]) for key, value in same.state_dict().items())
    assert all(parameter.requires_grad for parameter in same.parameters())
    assert torch.equal(other.projection[2].weight, before)


@pytest.mark.parametrize(
    ("kind", "state", "said"),
    [
        (Sdtt, lambda s: s | projection(), "belongs to a Di4C student"),
        (Di4CText, lambda s: s, "no λ projection"),
        (Mdlm, lambda s: s | {"vocab_embed.embedding": torch.zeros(TOKENS, 32)}, "GPT-2's has 50257 tokens"),
        (Mdlm, lambda s: {k: v for k, v in s.items() if "blocks.1" not in k}, "missing from the file: blocks.1"),
        (Mdlm, lambda s: {"emb.weight": torch.zeros(2)}, "vocab_embed.embedding"),
    ],
)
def test_files_that_do_not_fit_are_explained(tmp_path, kind, state, said):
    torch.save(prefixed(state(published(random_network())), "backbone."), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=said):
        kind(process(), LENGTH, path=str(tmp_path / "x.pt"), backbone=backbone())


def test_ema_that_is_asked_for_must_be_there(tmp_path):
    torch.save({"state_dict": published(random_network())}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="no EMA shadows"):
        Mdlm(process(), LENGTH, path=str(tmp_path / "x.ckpt"), ema=True)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "module.backbone.",
        "backbone.module.",
        "backbone._orig_mod.",
        "_orig_mod.module.backbone.",
    ],
)
@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_trouble_23_wrappers_around_the_published_network_are_cut_off(tmp_path, prefix, kind):
    network = random_network()
    state = prefixed(published(network), prefix)
    file = tmp_path / f"mdlm.{kind}"
    if kind == "ckpt":
        torch.save(lightning(state, [2 * value for value in parameters(published(network))]), file)
    else:
        save_file(state, file)
    teacher = Mdlm(process(), LENGTH, path=str(file), backbone=backbone())
    assert agree(teacher.backbone, network, 2.0 if kind == "ckpt" else 1.0)
