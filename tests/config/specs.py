"""Specs that tests write down in one line."""

import copy
from pathlib import Path

import yaml

TRAIN = {
    "run": "runs/x",
    "steps": 10,
    "batch_size": 4,
    "optimizer": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.0},
    "schedule": {"warmup": 0, "decay": "constant"},
    "clip": 1.0,
    "ema": 0.99,
    "precision": "fp32",
}
EVAL = {"sampler": "ancestral", "metrics": ["entropy"], "steps": [1, 2], "samples": 8, "seeds": 1, "batch_size": 8}
BACKBONE = {"name": "dit", "width": 16, "depth": 1, "heads": 2}
TEACHER = {"name": "denoiser", "backbone": BACKBONE, "parameterisation": "subs"}
PRETRAIN = {
    "task": "pretrain",
    "seed": 0,
    "data": "digits",
    "process": "absorbing",
    "teacher": TEACHER,
    "objective": {"time": {"name": "uniform"}},
    "train": TRAIN,
}
DISTILL = PRETRAIN | {
    "task": "distill",
    "student": {"head": "token"},
    "latent": "uniform",
    "objective": {
        "components": 2,
        "sampler": "ancestral",
        "time": {"name": "uniform"},
        "data": {"weight": 1.0, "estimator": "monte-carlo", "gate": {"shape": "constant", "scale": 1.0}},
    },
}


def changed(spec: dict, **changes) -> dict:
    """A deep copy with values changed: train__steps=3 sets spec["train"]["steps"]; None removes."""
    spec = copy.deepcopy(spec)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = spec
        for key in parents:
            place = place[key]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return spec


def written(folder: Path, spec: dict, name: str = "spec.yaml") -> Path:
    """The spec as a YAML file."""
    path = folder / name
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path
