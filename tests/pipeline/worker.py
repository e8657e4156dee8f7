"""Runs specs with a pipeline one after another in one process a rank: python -m tests.pipeline.worker JOBS.json RESULTS.json

A job: {"spec", "resume", "die"}; die: the name of a moment at which the whole is broken off as a kill would:
"measuring NAME" before a run is measured, "writing FILE K" before the K-th writing of a file, "ending" before the last export;
or "signal NAME": SIGTERM comes after the run's first update.
"""

import collections
import os
import signal
from unittest import mock

from di4c.config.spec import Spec
from di4c.engine import process_group
from di4c.engine.loop import Trainer
from di4c.errors import Di4CError
from di4c.pipeline import run, runs
from tests.engine.launching import work


class Killed(Exception):
    pass


def dying(action, moment, die: str | None):
    """`action`, unless it is called at the moment to die at; moment(*arguments) names one."""

    def wrapped(*arguments, **options):
        if moment(*arguments) == die:
            raise Killed
        return action(*arguments, **options)

    return wrapped


def signalled(update, die: str | None):
    def wrapped(trainer, *arguments):
        update(trainer, *arguments)
        if die == f"signal {trainer.options.run.name}":
            os.kill(os.getpid(), signal.SIGTERM)

    return wrapped


def perform(job: dict) -> dict:
    die, written = job.get("die"), collections.Counter()

    def writing(self, file, text):
        written[file] += 1
        return f"writing {file} {written[file]}"

    with (
        mock.patch.object(
            runs.SpecRuns, "evaluate", dying(runs.SpecRuns.evaluate, lambda self, name, *a: f"measuring {name}", die)
        ),
        mock.patch.object(runs.SpecRuns, "write", dying(runs.SpecRuns.write, writing, die)),
        mock.patch.object(run, "copy_export", dying(run.copy_export, lambda *a: "ending", die)),
        mock.patch.object(Trainer, "_update", signalled(Trainer._update, die)),
    ):
        try:
            result = run.run(Spec.from_dict(job["spec"]), device=process_group.start(), resume=job.get("resume", False))
            return {"step": result.step, "finished": result.finished}
        except Killed:
            return {"killed": True}
        except Di4CError as error:
            return {"error": str(error)}


if __name__ == "__main__":
    work(perform)
