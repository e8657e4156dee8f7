"""Runs specs with rounds one after another in one process a rank: python -m tests.rounds.worker JOBS.json RESULTS.json

A job: {"spec", "resume", "die"}; die: the name of a moment at which the run is broken off as a kill would:
"measuring K" before round K is measured, "noting K" before it is written down, "ending" before the last export.
"""

import json
import sys
from pathlib import Path

from di4c.config.spec import Spec
from di4c.engine import ranks
from di4c.errors import Di4CError
from di4c.rounds import loop


class Killed(Exception):
    pass


def dying(action, moment: str, die: str | None, number=lambda *a: ""):
    """`action`, unless it is called at the moment to die at."""

    def wrapped(*arguments, **options):
        if die == f"{moment} {number(*arguments)}".strip():
            raise Killed
        return action(*arguments, **options)

    return wrapped


def perform(job: dict) -> dict:
    die, kept = job.get("die"), (loop.of_run, loop._Rounds._note, loop.copy_export)
    loop.of_run = dying(loop.of_run, "measuring", die, lambda folder, *rest: folder.name[-1])
    loop._Rounds._note = dying(loop._Rounds._note, "noting", die, lambda self, number, *rest: number)
    loop.copy_export = dying(loop.copy_export, "ending", die)
    try:
        result = loop.train_rounds(Spec.from_dict(job["spec"]), device=ranks.start(), resume=job.get("resume", False))
        return {"step": result.step, "finished": result.finished}
    except Killed:
        return {"killed": True}
    except Di4CError as error:
        return {"error": str(error)}
    finally:
        loop.of_run, loop._Rounds._note, loop.copy_export = kept


def main() -> None:
    jobs, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    ranks.start()
    results = [perform(job) for job in jobs]
    if ranks.rank() == 0:
        out.write_text(json.dumps(results))
    ranks.finish()


if __name__ == "__main__":
    main()
