"""Self-distillation through time under the trainer: a run that is resumed in a later round goes on exactly."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from di4c_plugins.backbones.mdlm_dit import MdlmDiT

TRAIN = Path(__file__).parents[3] / "tools" / "train.py"
SIZES = {"width": 32, "depth": 1, "heads": 2, "conditioning_width": 8, "mlp_ratio": 2, "dropout": 0.1}


@pytest.fixture
def spec(tmp_path) -> Path:
    (tmp_path / "text.txt").write_text("the old sailor went home to sleep by the sea " * 40)
    torch.manual_seed(0)
    network = MdlmDiT(8, 29, **SIZES)
    weights = {name: torch.randn_like(value) * 0.2 for name, value in network.named_parameters()}
    state = {name.replace("readout.", "output_layer."): value for name, value in weights.items()}
    torch.save(state, tmp_path / "teacher.pt")
    values = {
        "task": "distill", "seed": 0, "process": "mdlm",
        "data": {"name": "text", "path": str(tmp_path / "text.txt"), "length": 8, "normalise": "letters",
                 "cache": str(tmp_path / "cache")},
        "teacher": {"name": "mdlm", "path": str(tmp_path / "teacher.pt"), "backbone": {"name": "mdlm-dit", **SIZES}},
        "student": {"head": "none"}, "latent": {"name": "categorical", "atoms": 1},
        "objective": {"name": "sdtt", "distance": "kl-bwd", "base_steps": 8, "rounds": 3, "steps_per_round": 2},
        "train": {
            "run": "unused", "steps": 5, "batch_size": 4, "clip": 1.0, "ema": 0.9, "precision": "fp32", "log_every": 1,
            "optimizer": {"lr": 1e-2, "betas": [0.9, 0.99], "weight_decay": 0.0},
            "schedule": {"warmup": 0, "decay": "constant"},
        },
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "spec.yaml"


def train(spec: Path, run: str, *options: str) -> list[str]:
    """The losses in the run's metrics after it."""
    folder = spec.parent / run
    command = [sys.executable, TRAIN, "--spec", spec, "--set", f"train.run={folder}", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "metrics.csv") as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_a_resumed_run_keeps_the_teacher_of_its_round(spec, stage):
    zero = ["--set", f"deepspeed.zero_optimization.stage={stage}"]
    whole = train(spec, "whole", *zero)
    assert len(whole) == 5 and all(float(loss) > 0 for loss in whole)
    train(spec, "cut", *zero, "--set", "train.steps=3")  # one step into the second round
    resumed = train(spec, "cut", *zero, "--resume")
    assert [float(loss) for loss in resumed] == pytest.approx([float(loss) for loss in whole], rel=1e-6)
