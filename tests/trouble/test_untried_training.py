"""Trainings that had not been tried together: ties under ZeRO-3, adapters that move between stages, compiling and a kill, t near 0."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("peft")
pytest.importorskip("transformers")
import di4c
from tests.engine.launching import losses, relative, train_specs
from tests.engine.test_shared_base import BERT, job
from tests.scale.systems import DIT, denoiser

pytestmark = pytest.mark.slow

TIED = {"name": "hf-masked-lm", "config": BERT | {"tie_word_embeddings": True}, "dropout": 0.0}
ROBERTA = TIED | {"config": TIED["config"] | {"model_type": "roberta", "pad_token_id": 1}}
"""Its tables of words and of positions have padding rows."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("untried")
    (folder / "text.txt").write_text("abc def gh " * 200)
    return folder


def whole(folder: Path, name: str, zero: dict, teacher: dict = TIED, **options) -> dict:
    """A job whose student is a copy of the whole network, with an eps that keeps gradients of rounding noise from moving weights."""
    made = job(folder, name, zero, **options)
    made["spec"]["train"]["optimizer"] |= {"lr": 1e-3, "eps": 1e-3}
    del made["spec"]["student"]["lora"]
    made["spec"]["teacher"] = teacher
    return made


def test_tied_embeddings_under_zero_3_are_trained_exported_and_loaded(folder):
    train_specs([whole(folder, "tied-0", {"stage": 0}), whole(folder, "tied-3", {"stage": 3})])
    train_specs([whole(folder, "tied-3x2", {"stage": 3})], ranks=2)
    expected = losses(folder / "tied-0")
    for name in ("tied-3", "tied-3x2"):
        assert relative(losses(folder / name), expected) < 1e-4
        held = load_file(folder / name / "export" / "model.safetensors")
        same = load_file(folder / "tied-0" / "export" / "model.safetensors")
        assert held.keys() == same.keys() and all(torch.allclose(held[key], same[key], atol=1e-4) for key in held)
        model = di4c.load(folder / name / "export", device="cpu")
        backbone = model.student.backbone
        assert backbone.readout.weight is backbone.network.get_input_embeddings().weight
        assert (model.sample(3, steps=2, seed=0) != 12).all()


@pytest.mark.parametrize("placement", ["sharded", "offloaded"])
def test_a_sharded_teacher_with_padding_rows_teaches_the_same(folder, placement):
    name = f"padding-{placement}"
    train_specs([whole(folder, name, {"stage": 2}, ROBERTA, teacher_placement=placement)], ranks=2)
    train_specs([whole(folder, f"{name}-replicated", {"stage": 2}, ROBERTA)], ranks=2)
    assert relative(losses(folder / name), losses(folder / f"{name}-replicated")) < 1e-5


def test_adapters_of_two_ranks_at_stage_2_go_on_at_one_of_stage_3(folder):
    train_specs([job(folder, "adapters", {"stage": 2})])
    train_specs([job(folder, "moved", {"stage": 2}, steps=3)], ranks=2)
    train_specs([job(folder, "moved", {"stage": 3}, resume=True)])
    assert relative(losses(folder / "moved"), losses(folder / "adapters")) < 1e-4
    assert (di4c.load(folder / "moved" / "export", device="cpu").sample(2, steps=2, seed=0) != 12).all()


def small(
    folder: Path, name: str, *, resume: bool = False, teacher_step: float = 0.1, low: float = 0.05, **options
) -> dict:
    """A job of the small DiT, whose time goes down to `low`."""
    made = job(folder, name, {"stage": 0}, resume=resume, **options)
    backbone = {key: value for key, value in DIT.items() if key != "grid"}
    made["spec"] |= {"teacher": denoiser(backbone), "student": {"head": "token"}, "process": "absorbing"}
    made["spec"]["objective"] |= {
        "time": {"name": "uniform", "low": low},
        "teacher_step": {"distribution": "constant", "size": teacher_step},
    }
    return made


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_a_compiled_run_with_an_average_goes_on_after_its_end_was_cut_off(folder):
    """What a kill leaves: the last checkpoint before it."""
    train_specs([small(folder, "cut", compile=True), small(folder, "eager")])
    run = folder / "cut"
    shutil.copytree(run, folder / "undisturbed")
    shutil.rmtree(run / "export")
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    train_specs([small(folder, "cut", compile=True, resume=True)])
    assert relative(losses(run), losses(folder / "undisturbed")) < 1e-5
    assert relative(losses(run), losses(folder / "eager")) < 1e-3
    ours, theirs = (load_file(folder / name / "export" / "model.safetensors") for name in ("cut", "undisturbed"))
    assert not any("_orig_mod" in key for key in ours) and ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-5) for key in ours)
    config = json.loads((run / "export" / "config.json").read_text())
    assert config["weights"] == "ema" and (di4c.load(run, device="cpu").sample(2, steps=2, seed=0) < 10).all()


def test_times_near_0_in_bfloat16_stay_finite_over_thousands_of_steps(folder):
    name, low = "near-0", 1e-6
    options = {"precision": "bf16", "on_nonfinite": "skip", "steps": 2000, "checkpoint_every": 0, "log_every": 50}
    train_specs([small(folder, name, low=low, teacher_step=low / 2, **options)])
    told = losses(folder / name)
    assert len(told) == 40 and all(loss == loss and abs(loss) < 1e4 for loss in told)
    assert not list((folder / name).glob("nonfinite-*"))
    assert all(value.isfinite().all() for value in load_file(folder / name / "export" / "model.safetensors").values())
