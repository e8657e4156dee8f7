"""Runs with a critic, with λ told as clusters at first, and with a posterior: stages agree, and a run that was cut goes on exactly."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from di4c.config.spec import read_spec
from tests.engine.launching import losses, relative, train_specs

DATA = {"weight": 1.0, "estimator": "monte-carlo", "gate": {"shape": "constant", "scale": 1.0}}
COMMON = {"components": 3, "time": {"name": "uniform"}, "sampler": "ancestral", "data": DATA}
CHANGES = {
    "matching": {
        "latent": {"name": "categorical", "atoms": 3},
        "objective": COMMON | {
            "name": "distribution-matching", "matching": {"x_s": "bridge", "renoised": 2}, "critic": {"warmup": 1, "updates": 2},
        },
    },
    "clustered": {
        "latent": {"name": "categorical", "atoms": 3},
        "objective": COMMON | {"full_noise": {"weight": 1.0, "ratio": 8, "alone": 2, "clustered": 5}},
    },
    "posterior": {
        "latent": {"name": "product-categorical", "factors": 2, "values": 3},
        "objective": COMMON | {"proposal": {"posterior": {"name": "transformer", "width": 16, "depth": 1, "heads": 2}, "beta": 0.1, "warmup": 4}},
    },
}  # fmt: skip
STAGES = {"matching": (0, 2), "clustered": (0, 3), "posterior": (0, 1, 2)}


def job(folder: Path, kind: str, name: str, stage: int, *, steps: int = 6, resume: bool = False) -> dict:
    spec = json.loads(json.dumps(read_spec("enumerable-student").to_dict()))
    spec |= CHANGES[kind]
    spec["train"] |= {
        "run": f"{folder}/{kind}-{name}", "steps": steps, "batch_size": 4, "checkpoint_every": 2, "log_every": 1, "diagnostics_every": 0,
        "schedule": {"warmup": 1, "decay": "constant"},
    }  # fmt: skip
    return {"spec": spec | {"deepspeed": {"zero_optimization": {"stage": stage}}}, "resume": resume}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    jobs = []
    for kind, stages in STAGES.items():
        jobs += [job(folder, kind, f"stage-{stage}", stage) for stage in stages]
        jobs += [job(folder, kind, "cut", stages[-1], steps=steps, resume=steps == 6) for steps in (3, 6)]
    train_specs(jobs)
    return folder


@pytest.mark.parametrize("kind", CHANGES)
def test_stages_train_alike(folder, kind):
    first, *others = (losses(folder / f"{kind}-stage-{stage}") for stage in STAGES[kind])
    assert len(first) == 6 and all(relative(other, first) < 1e-5 for other in others)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_resumed_run_has_the_losses_of_an_undisturbed_one(folder, kind):
    """Cut within the steps in which λ is told, and after a step in which the student rested."""
    whole = f"{kind}-stage-{STAGES[kind][-1]}"
    assert losses(folder / f"{kind}-cut") == losses(folder / whole)
    before, after = (load_file(folder / name / "export/model.safetensors") for name in (whole, f"{kind}-cut"))
    assert all(torch.equal(before[key], after[key]) for key in before)
