"""Distribution matching under the trainer: stages agree, runs resume exactly, a critic shares the base with teacher and student."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.engine.launching import losses, relative, train_specs
from tests.engine.test_shared_base import SPEC, job, names

pytestmark = pytest.mark.slow
OBJECTIVE = {
    "name": "distribution-matching", "components": 3, "time": {"name": "uniform"}, "sampler": "ancestral",
    "data": {"weight": 1.0, "estimator": "monte-carlo", "gate": {"shape": "constant", "scale": 1.0}},
    "matching": {"x_s": "bridge", "renoised": 2}, "critic": {"warmup": 1, "updates": 2},
}  # fmt: skip
MULTIPLIERS = {"lr_multipliers": {"critic": 3.0}, "betas_of": {"critic": [0.0, 0.9]}}


def matched(folder: Path, name: str, stage: int, *, lora: bool = False, **options) -> dict:
    """A job of six steps: the critic alone, then every second step the student."""
    found = job(folder, name, {"stage": stage}, **options)
    spec = found["spec"]
    spec["objective"], spec["train"]["checkpoint_every"] = OBJECTIVE, 2
    spec["train"]["optimizer"] = SPEC["train"]["optimizer"] | MULTIPLIERS
    if not lora:
        spec["student"] = {"head": "token"}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("matched")
    (folder / "text.txt").write_text("abc def gh " * 200)
    jobs = [matched(folder, f"stage-{s}", s) for s in range(4)]
    for stage in (0, 2, 3):
        jobs += [matched(folder, f"cut-{stage}", stage, steps=3), matched(folder, f"cut-{stage}", stage, resume=True)]
    jobs += [matched(folder, "moved", 3, steps=3), matched(folder, "moved", 1, resume=True)]
    jobs += [matched(folder, f"lora-{s}", s, lora=True) for s in (0, 3)]
    jobs += [matched(folder, "lora-cut", 0, lora=True, steps=3), matched(folder, "lora-cut", 0, lora=True, resume=True)]
    train_specs(jobs)
    return folder


def test_all_stages_train_alike(folder):
    expected = losses(folder / "stage-0")
    for stage in (1, 2, 3):
        assert relative(losses(folder / f"stage-{stage}"), expected) < 1e-5, stage
    assert relative(losses(folder / "lora-3"), losses(folder / "lora-0")) < 1e-5


@pytest.mark.parametrize(
    ("cut", "whole"), [("cut-0", "stage-0"), ("cut-2", "stage-2"), ("cut-3", "stage-3"), ("lora-cut", "lora-0")]
)
def test_a_resumed_run_has_the_losses_of_an_undisturbed_one(folder, cut, whole):
    """Cut after a step in which the student rested, so that its count of updates differs from the critic's."""
    assert losses(folder / cut) == losses(folder / whole)
    before, after = (load_file(folder / name / "export/model.safetensors") for name in (whole, cut))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_run_moves_to_another_stage(folder):
    assert relative(losses(folder / "moved"), losses(folder / "stage-0")) < 1e-5


def test_the_critic_is_checkpointed_but_neither_averaged_nor_exported(folder):
    newest = folder / "stage-0/checkpoints/step-00000006"
    assert any(n.startswith("critic.") for n in names(newest / "model.safetensors"))
    assert any("/critic." in n for n in names(newest / "optimizer.safetensors"))
    for file in (newest / "ema.safetensors", folder / "stage-0/export/model.safetensors"):
        assert names(file) and not any("critic" in n for n in names(file)), file


def test_the_student_rests_in_the_steps_of_the_critic_alone(folder):
    """Of six steps every second moves the student; the step count of its optimizer says so."""
    state = json.loads((folder / "stage-0/checkpoints/step-00000006/state.json").read_text())
    assert (state["optimizer_steps"], state["optimizer_steps_beside"]) == (3, 6)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_triple_on_one_base_keeps_adapters_and_head_alone(folder, stage):
    newest = folder / f"lora-{stage}/checkpoints/step-00000006"
    held = names(newest / "model.safetensors") - {"model.backbone.base_digest"}
    assert all(".lora_" in n or n.startswith("model.head.") for n in held)
    moved = [n for n in held if ".lora_B.critic." in n]
    with safe_open(newest / "model.safetensors", "pt") as file:
        assert moved and any(file.get_tensor(n).abs().max() > 0 for n in moved)
    assert not any(".critic." in n for n in names(folder / f"lora-{stage}/export/model.safetensors"))
