"""Trains cells of the scale matrix one after another: python -m tests.scale.cells JOBS.json RESULTS.json

A job: {"folder", "stage", "precision", "offload", "head"} and optionally "steps", "resume", "remove", and "teacher", its placement.
Its result on rank 0: {"finished": bool, "teacher": share of its weights that lies there} or {"error", "kind"}.
"""

import json
import shutil
import sys
from pathlib import Path

from torch import nn

from di4c import ranks
from di4c.config.build import build
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.engine import process_group
from di4c.engine.loop import Run, train
from di4c.engine.options import OptimizerOptions, ScheduleOptions, TrainOptions
from di4c.errors import Di4CError

STEPS = 30
HEADS = {"token": {"name": "token"}, "late": {"name": "late", "blocks": 1}}


def spec_of(job: dict) -> Spec:
    """A small mixture student of a small random teacher on digits, all three terms of the loss."""
    zero = {"stage": job["stage"]} | ({"stage3_param_persistence_threshold": 0} if "teacher" in job else {})
    if job["offload"]:
        zero["offload_optimizer"] = {"device": "cpu"}
        if job["stage"] == 3:
            zero["offload_param"] = {"device": "cpu"}
    backbone = {"name": "dit", "width": 16, "depth": 2, "heads": 2, "grid": [8, 8], "time_conditioning": False}
    values = {
        "task": "distill",
        "seed": 0,
        "data": "digits",
        "process": {"name": "absorbing", "schedule": "log-linear"},
        "teacher": {"name": "denoiser", "parameterisation": "subs", "backbone": backbone},
        "student": {"head": HEADS[job["head"]]},
        "latent": {"name": "gaussian", "dim": 2},
        "objective": {
            "components": 4, "targets": 1, "sampler": "ancestral", "time": {"name": "uniform", "low": 0.01},
            "teacher_step": {"distribution": "constant", "size": 0.25},
            "data": {"weight": 1.0, "estimator": "monte-carlo", "gate": {"shape": "constant", "scale": 1.0}},
            "consistency": {"weight": 0.25, "estimator": "control-variate"},
            "distillation": {"weight": 0.25, "max_time": 0.1},
        },
        "train": {
            "run": job["folder"], "steps": job.get("steps", STEPS), "batch_size": 8, "micro_batch_size": 4, "clip": 10.0, "ema": 0.9,
            "optimizer": {"lr": 2e-3, "betas": [0.9, 0.99], "weight_decay": 0.02, "lr_multipliers": {"head": 3.0}},
            "schedule": {"warmup": 5, "decay": "constant"}, "precision": job["precision"],
        },
        "deepspeed": {"zero_optimization": zero},
    }  # fmt: skip
    return Spec.from_dict(values)


def perform(job: dict) -> dict:
    options = TrainOptions(
        run=Path(job["folder"]), steps=job.get("steps", STEPS), batch_size=8, micro_batch_size=4, clip=10.0, ema=0.9,
        log_every=1, checkpoint_every=10, keep=5, diagnostics_every=0,
        optimizer=OptimizerOptions(lr=2e-3, betas=(0.9, 0.99), weight_decay=0.02, lr_multipliers={"head": 3.0}),
        schedule=ScheduleOptions(warmup=0, decay="constant"), precision=job["precision"], teacher_placement=job.get("teacher", "replicated"),
    )  # fmt: skip
    try:
        spec = spec_of(job)
        parts = build(spec, Registry.default())
        run = Run(fingerprint=parts.data.fingerprint(), spec=spec.to_dict())
        result = train(
            parts.objective, parts.data.split("train"), run=run, options=options, deepspeed=spec.deepspeed,
            resume=job.get("resume", False),
        )  # fmt: skip
        return {"finished": result.finished, "teacher": share_held(parts.teacher.backbone)}
    except Di4CError as error:
        return {"error": str(error), "kind": type(error).__name__}


def share_held(network: nn.Module) -> float:
    """Numbers of the parameters that this rank holds, of all that they have."""
    held = sum(p.numel() + (p.ds_tensor.ds_numel if hasattr(p, "ds_tensor") else 0) for p in network.parameters())
    return held / sum(getattr(p, "ds_numel", p.numel()) for p in network.parameters())


def main() -> None:
    jobs, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    process_group.start()
    results = []
    for job in jobs:
        for path in job.get("remove", []):
            ranks.on_rank_zero(lambda path=path: shutil.rmtree(path))
        results.append(perform(job))
        if ranks.rank() == 0:
            out.write_text(json.dumps(results))
    process_group.finish()


if __name__ == "__main__":
    main()
