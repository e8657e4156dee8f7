"""Runs toy trainings one after another in one process a rank: python -m tests.engine.worker JOBS.json RESULTS.json

A job: {"folder", "options", "deepspeed", "objective", "resume", "fingerprint", "file_limit", "remove",
"flip", "cut"}, all but the
first optional. Its result: {"step", "finished", "already"} or {"error", "kind"}.
"""

import json
import resource
import shutil
import sys
from pathlib import Path

from di4c.engine import ranks
from di4c.engine.loop import Run, train
from di4c.engine.options import OptimizerOptions, ScheduleOptions, TrainOptions
from di4c.errors import Di4CError
from tests.engine.toy import ToyData, ToyObjective

DEFAULTS = {
    "steps": 12, "batch_size": 8, "micro_batch_size": 4, "clip": 1.0, "ema": 0.9, "log_every": 1, "checkpoint_every": 5,
    "optimizer": {"lr": 1e-2, "weight_decay": 0.1, "lr_multipliers": {"mix.0": 2.0}},
    "schedule": {"warmup": 3, "decay": "cosine", "final": 0.1},
}  # fmt: skip


def options_of(job: dict) -> TrainOptions:
    values = DEFAULTS | job.get("options", {})
    parts = {"optimizer": OptimizerOptions(**values["optimizer"]), "schedule": ScheduleOptions(**values["schedule"])}
    return TrainOptions(**values | parts)


def perform(job: dict) -> dict:
    data = ToyData()
    run = Run(Path(job["folder"]), seed=1, fingerprint=job.get("fingerprint", data.fingerprint()), spec={"task": "toy"})
    if "file_limit" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], resource.RLIM_INFINITY))
    try:
        result = train(
            ToyObjective(**job.get("objective", {})), data.split("train"), run=run, options=options_of(job),
            deepspeed=job.get("deepspeed", {}), resume=job.get("resume", False),
        )  # fmt: skip
        return {"step": result.step, "finished": result.finished, "already": result.already}
    except Di4CError as error:
        return {"error": str(error), "kind": type(error).__name__}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def main() -> None:
    jobs, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    ranks.start()
    results = []
    for job in jobs:
        for path in job.get("remove", []):
            ranks.on_rank_zero(lambda path=path: shutil.rmtree(path))
        for key, change in (("flip", flip_a_bit), ("cut", cut_in_half)):
            for path in job.get(key, []):
                ranks.on_rank_zero(lambda path=path, change=change: change(Path(path)))
        results.append(perform(job))
        if ranks.rank() == 0:
            out.write_text(json.dumps(results))
    ranks.finish()
    if results and not results[-1].get("finished", True):
        sys.exit(ranks.STOPPED_BY_SIGNAL)


if __name__ == "__main__":
    main()
