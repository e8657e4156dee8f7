"""A published Di4C student of MaskGIT becomes a run folder that samples as a mixture."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

import di4c
from di4c.errors import SpecError
from di4c_plugins.backbones.maskgit import MaskGITBackbone

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from import_student import import_student

SPEC = {
    "task": "distill",
    "seed": 0,
    "data": "digits",
    "process": "maskgit",
    "teacher": {"name": "di4c-maskgit", "path": "student.pth"},
    "student": {"head": "sinusoidal-token"},
    "latent": "uniform",
    "objective": {
        "components": 2,
        "time": {"name": "uniform"},
        "sampler": "maskgit",
        "data": {"weight": 1.0, "estimator": "monte-carlo", "gate": {"shape": "constant", "scale": 1.0}},
    },
    "train": {
        "run": "unused",
        "steps": 1,
        "batch_size": 1,
        "clip": None,
        "ema": None,
        "precision": "fp32",
        "optimizer": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.0},
        "schedule": {"warmup": 0, "decay": "constant"},
    },
    "eval": {
        "sampler": {"name": "maskgit", "guidance": 2.0, "guide": "teacher"},
        "metrics": ["entropy"],
        "steps": [2],
        "samples": 4,
        "seeds": 1,
        "batch_size": 4,
    },
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = MaskGITBackbone(64, 18, num_classes=10, width=16, depth=1, heads=16, mlp_width=16)
    state = {name: torch.randn_like(value) * 0.2 for name, value in network.named_parameters()}
    for index, (rows, columns) in {"0": (512, 128), "2": (16, 512)}.items():
        state[f"latent_projection.{index}.weight"] = torch.randn(rows, columns)
        state[f"latent_projection.{index}.bias"] = torch.zeros(rows)
    torch.save({"iter": 1, "global_epoch": 0, "model_state_dict": state, "optimizer_state_dict": {}}, "student.pth")
    Path("spec.yaml").write_text(yaml.safe_dump(SPEC))
    return tmp_path


def test_the_published_student_is_sampled_with_its_own_lambda_layers(here):
    model = di4c.load(import_student(Path("spec.yaml"), [], Path("imported")), device="cpu")
    state = torch.load("student.pth", weights_only=True)["model_state_dict"]
    assert torch.equal(model.student.head.projection[2].weight, state["latent_projection.2.weight"])
    assert torch.equal(model.student.backbone.readout.weight, state["tok_emb.weight"])
    x_0 = model.sample(4, 2, [0, 1, 2, 3], seed=1)
    assert x_0.shape == (4, 64) and (x_0 < 17).all()


def test_a_teacher_without_lambda_is_no_student(here):
    backbone = "{name: maskgit, width: 16, depth: 1, heads: 4}"
    teacher = f"teacher={{name: denoiser, parameterisation: raw, backbone: {backbone}}}"
    with pytest.raises(SpecError, match="has no λ layers"):
        import_student(Path("spec.yaml"), [teacher], Path("other"))
