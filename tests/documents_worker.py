"""Trains specs of the documents one after another in one process, then evaluates: python -m tests.documents_worker JOBS.json RESULTS.json

A job: {"folder": where it runs, "spec", "set"}; with "evaluate", a run folder, it is compared with its teacher instead.
"""

import json
import os
import sys
from pathlib import Path

from di4c.config.spec import read_spec
from di4c.engine import process_group
from di4c.evaluation.comparison import compare, settings_of
from di4c.evaluation.loaded import load
from di4c.pipeline.run import run
from di4c.ranks import Ranks


def perform(job: dict, device) -> bool:
    os.chdir(job["folder"])
    sys.path[:0] = [job["folder"]]
    if "evaluate" in job:
        model = load(job["evaluate"], device="cpu")
        outcome = compare(
            model, settings_of(model.spec), Path("report"), also={}, ranks=Ranks(), say=lambda *told: None
        )
        return bool(outcome.rows)
    return run(read_spec(job["spec"], job["set"]), device=device, resume=False).finished


def main() -> None:
    jobs, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]).resolve()
    device = process_group.start()
    results = [perform(job, device) for job in jobs]
    process_group.finish()
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
