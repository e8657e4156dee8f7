"""Runs toy trainings one after another in one process a rank: python -m tests.engine.worker JOBS.json RESULTS.json

A job: {"folder", "options", "deepspeed", "objective", "data", "resume", "fingerprint", "file_limit"}, all but the first optional.
Before it runs, "copy" names a run folder to start from, and "drop", "flip" and "cut" files below its folder to remove, to
change by a bit or to halve. Its result: {"step", "finished", "already"} or {"error", "kind"}.
"""

import json
import resource
import shutil
import sys
import threading
from pathlib import Path

from di4c import ranks
from di4c.engine import process_group
from di4c.engine.loop import Run, train
from di4c.errors import Di4CError
from tests.engine.toy import ToyData, ToyObjective, options_of


def perform(job: dict) -> dict:
    data = ToyData(**job.get("data", {}))
    run = Run(seed=1, fingerprint=job.get("fingerprint", data.fingerprint()), spec={"task": "toy"})
    if "file_limit" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], resource.RLIM_INFINITY))
    try:
        result = train(
            ToyObjective(**job.get("objective", {})), data.split("train"), run=run, options=options_of(run=Path(job["folder"]), **job.get("options", {})),
            deepspeed=job.get("deepspeed", {}), resume=job.get("resume", False),
        )  # fmt: skip
        return {"step": result.step, "finished": result.finished, "already": result.already}
    except Di4CError as error:
        return {"error": str(error), "kind": type(error).__name__}
    finally:
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("di4c-batches")]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def prepare(job: dict) -> None:
    """Makes the folder what the job is to find. Rank 0."""
    folder = Path(job["folder"])
    if "copy" in job:
        shutil.copytree(job["copy"], folder)
    for name in job.get("drop", []):
        shutil.rmtree(folder / name)
    for name in job.get("flip", []):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 4
        (folder / name).write_bytes(content)
    for name in job.get("cut", []):
        (folder / name).write_bytes((folder / name).read_bytes()[: (folder / name).stat().st_size // 2])


def main() -> None:
    jobs, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    process_group.start()
    results = []
    for job in jobs:
        ranks.on_rank_zero(lambda job=job: prepare(job))
        results.append(perform(job))
        if ranks.rank() == 0:
            out.write_text(json.dumps(results))
    process_group.finish()
    if results and not results[-1].get("finished", True):
        sys.exit(process_group.STOPPED_BY_SIGNAL)


if __name__ == "__main__":
    main()
