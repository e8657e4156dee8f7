import json
import os

import pytest
import torch
from safetensors.torch import save_file

from di4c.config.build import build, portable
from di4c.config.registry import Registry
from di4c.config.spec import Spec, save_spec

TRAIN = {
    "run": "unused", "steps": 1, "batch_size": 4, "optimizer": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.0},
    "schedule": {"warmup": 0, "decay": "constant"}, "clip": None, "ema": None, "precision": "fp32",
}  # fmt: skip
EVAL = {
    "sampler": "ancestral", "metrics": ["pairwise", "frechet", {"name": "nll", "num_examples": 8, "lambda_draws": 4}],
    "steps": [1, 2], "mixture_sizes": [2, "inf", "product"], "samples": 24, "seeds": 2, "batch_size": 10,
}  # fmt: skip
PRETRAIN = {
    "task": "pretrain", "seed": 0, "data": "digits", "process": "absorbing", "train": TRAIN, "eval": EVAL,
    "teacher": {
        "name": "denoiser",
        "parameterisation": "subs",
        "backbone": {"name": "dit", "width": 16, "depth": 1, "heads": 2},
    },
    "objective": {"time": {"name": "uniform"}},
}  # fmt: skip


def distill(teacher_run) -> dict:
    """A spec whose teacher is a pretraining run."""
    return PRETRAIN | {
        "task": "distill",
        "teacher": {"name": "denoiser", "run": str(teacher_run)},
        "student": {"head": {"name": "token"}},
        "latent": {"name": "uniform"},
        "objective": {
            "components": 2,
            "sampler": "ancestral",
            "time": {"name": "uniform"},
            "data": {"weight": 1.0, "estimator": "monte-carlo", "gate": {"shape": "constant", "scale": 1.0}},
        },
    }


def write_run(folder, values: dict):
    """A run folder as training leaves it, with random weights."""
    spec = Spec.from_dict(values)
    parts = build(spec, Registry.default())
    model = parts.objective.model
    with torch.random.fork_rng():
        torch.manual_seed(len(values))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    os.makedirs(folder / "export")
    save_spec(spec, folder / "spec.yaml")
    save_file(model.state_dict(), folder / "export" / "model.safetensors")
    config = {"format": "di4c-export", "version": 1, "spec": portable(spec, parts.teacher).to_dict()}
    (folder / "export" / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps({"wall_clock_s": 90.0, "sessions": []}))
    (folder / "metrics.csv").write_text("step,loss,lr\n1,80.5,0.1\n2,79.25,0.1\n")
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """{"teacher": a pretraining run, "student": a run distilled from it}; do not write into them."""
    folder = tmp_path_factory.mktemp("runs")
    teacher = write_run(folder / "teacher", PRETRAIN)
    return {"teacher": teacher, "student": write_run(folder / "student", distill(teacher))}
