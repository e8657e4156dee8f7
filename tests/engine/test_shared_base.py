"""A student of adapters on its teacher's weights, trained at every stage: what is kept is small, and resumes anywhere."""

import json
import subprocess
from pathlib import Path

import pytest
from safetensors import safe_open

pytest.importorskip("peft")
pytest.importorskip("transformers")
import di4c
from di4c.errors import CheckpointError
from tests.engine.launching import losses, relative, train_specs

LETTERS = "abcdefgh \n"
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 20, "vocab_size": 16, "mask_token_id": 12,
}  # fmt: skip
SPEC = {
    "task": "distill", "seed": 0,
    "data": {"name": "text", "length": 8, "alphabet": LETTERS, "held_out": 0.1},
    "process": {"name": "absorbing", "mask_index": 12},
    "teacher": {"name": "hf-masked-lm", "config": BERT, "dropout": 0.0},
    "student": {"head": "token", "lora": {"rank": 2, "targets": ["query", "value"], "alpha": 4}},
    "latent": "uniform",
    "objective": {
        "components": 3, "targets": 2, "time": {"name": "uniform"}, "teacher_step": {"distribution": "constant", "size": 0.1},
        "sampler": "ancestral", "data": {"weight": 1.0, "estimator": "control-variate", "gate": {"shape": "constant", "scale": 1.0}},
        "consistency": {"weight": 1.0, "estimator": "control-variate"}, "distillation": {"weight": 1.0, "max_time": 0.1},
    },
    "train": {
        "steps": 6, "batch_size": 4, "optimizer": {"lr": 1e-2, "betas": [0.9, 0.99], "weight_decay": 0.0},
        "schedule": {"warmup": 1, "decay": "constant"}, "clip": 1.0, "ema": 0.9, "precision": "fp32",
        "checkpoint_every": 3, "log_every": 1, "diagnostics_every": 0,
    },
    "eval": {"sampler": "ancestral", "metrics": [], "steps": [2], "samples": 4, "seeds": 1, "batch_size": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds the text and the runs of one rank: stages 0 to 3, offloaded parameters, bfloat16."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "text.txt").write_text("abc def gh " * 200)
    offload = {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    jobs = [job(folder, f"stage-{s}", {"stage": s}) for s in range(4)]
    jobs += [job(folder, "offload", {"stage": 3} | offload), job(folder, "bf16", {"stage": 2}, precision="bf16")]
    train_specs(jobs)
    return folder


def job(folder: Path, name: str, zero: dict, *, resume: bool = False, **options) -> dict:
    spec = json.loads(json.dumps(SPEC))
    spec["data"] |= {"path": f"{folder}/text.txt", "cache": f"{folder}/cache"}
    spec["train"] |= {"run": f"{folder}/{name}"} | options
    return {"spec": spec | {"deepspeed": {"zero_optimization": zero}}, "resume": resume}


def names(file: Path) -> set[str]:
    with safe_open(file, "pt") as archive:
        return set(archive.keys())


def test_all_stages_train_alike(folder):
    expected = losses(folder / "stage-0")
    assert expected[-1] != pytest.approx(expected[0])
    for name in ("stage-1", "stage-2", "stage-3", "offload"):
        assert relative(losses(folder / name), expected) < 1e-5, name
    assert relative(losses(folder / "bf16"), expected) < 2e-2


@pytest.mark.parametrize("name", ["stage-0", "stage-2", "stage-3"])
def test_adapters_and_head_alone_are_kept(folder, name):
    newest = folder / name / "checkpoints" / "step-00000006"
    for file in (newest / "model.safetensors", newest / "ema.safetensors", newest / "optimizer.safetensors"):
        held = {n.removeprefix("exp_avg/").removeprefix("exp_avg_sq/") for n in names(file)} - {
            "model.backbone.base_digest"
        }
        assert held and all(".lora_" in n or n.startswith("model.head.") for n in held), file
    assert not [n for n in names(folder / name / "export" / "model.safetensors") if "embeddings" in n]


@pytest.mark.parametrize("name", ["stage-0", "stage-3"])
def test_an_export_loads_with_its_base(folder, name):
    model = di4c.load(folder / name / "export")
    tokens = model.sample(3, steps=2, seed=0)
    assert tokens.shape == (3, 8) and (tokens != 12).all()
    assert any(p.abs().max() > 0 for n, p in model.student.named_parameters() if "lora_B" in n)


def test_an_export_refuses_another_base(folder, tmp_path):
    export = tmp_path / "export"
    subprocess.run(["cp", "-R", str(folder / "stage-0" / "export"), str(export)], check=True)
    config = json.loads((export / "config.json").read_text())
    config["spec"]["seed"] = 1  # the random base is drawn from it
    (export / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="another base"):
        di4c.load(export)


@pytest.mark.slow
def test_runs_resume_at_other_stages_and_numbers_of_ranks(folder):
    whole = losses(folder / "stage-0")
    train_specs([job(folder, "moved", {"stage": 3}, steps=3)], ranks=2)
    train_specs([job(folder, "moved", {"stage": 1}, resume=True)])
    assert relative(losses(folder / "moved"), whole) < 1e-4
    train_specs([job(folder, "back", {"stage": 0}, steps=3)])
    train_specs([job(folder, "back", {"stage": 3}, resume=True)], ranks=2)
    assert relative(losses(folder / "back"), whole) < 1e-4
