"""Trains specs one after another in one process a rank: python -m tests.engine.shared_base_worker JOBS.json

A job: {"spec": mapping, "resume": bool}.
"""

import json
import sys
from pathlib import Path

from di4c.config.build import build, portable
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.engine import process_group
from di4c.engine.loop import Run, train


def main() -> None:
    process_group.start()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        spec = Spec.from_dict(job["spec"])
        parts = build(spec, Registry.default())
        run = Run(
            seed=spec.seed, fingerprint=parts.data.fingerprint(), spec=spec.to_dict(),
            exported_spec=portable(spec, parts.teacher).to_dict(),
        )  # fmt: skip
        train(
            parts.objective,
            parts.data.split("train"),
            run=run,
            options=spec.train,
            deepspeed=spec.deepspeed,
            resume=job["resume"],
        )
    process_group.finish()


if __name__ == "__main__":
    main()
