"""The runs of a grid, trained and evaluated by tools/train.py and tools/eval.py, each in a process of its own.

FOLDER/ROW/seed-S/ spec.yaml, run/ (the run folder), eval/ (what tools/eval.py writes), log.txt (what both said)
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from di4c.config.resuming import is_trained
from di4c.config.spec import save_spec
from tools.ablation.grid import Trial

TOOLS = Path(__file__).resolve().parents[1]


class Job(NamedTuple):
    """kind: "train" or "eval"."""

    kind: str
    trial: tuple[str, int]


@dataclass
class Children:
    """The processes that run now, so that they end with us: a training that is asked to end writes a checkpoint first."""

    niceness: int = 0
    threads: int = 1
    ended: bool = False
    _running: set[subprocess.Popen] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, words: Sequence[str | Path], log: Path) -> int:
        """Runs one command, adds what it says to the file, and returns its exit code."""
        command = [*(["nice", "-n", str(self.niceness)] if self.niceness else []), *map(str, words)]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with open(log, "a", encoding="utf-8") as output:
            print(f"$ {shlex.join(command)}", file=output, flush=True)
            with self._lock:
                if self.ended:
                    return 1
                # a session of its own: Ctrl-C reaches this process alone, which asks its children to end
                streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
                child = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
                self._running.add(child)
        try:
            return child.wait()
        finally:
            with self._lock:
                self._running.discard(child)

    def end(self) -> None:
        """Asks every child to end, and starts no more."""
        with self._lock:
            self.ended = True
            children = list(self._running)
        for child in children:
            child.send_signal(signal.SIGTERM)


def jobs_of(trials: Iterable[Trial]) -> dict[Job, set[Job]]:
    """{job: the jobs that must be done before}: a run is evaluated when it is trained, and trained when those it is made of are."""
    before: dict[Job, set[Job]] = {}
    for trial in trials:
        trained = {Job("train", need.key) for need in trial.needs if need.spec is not None}
        if trial.spec is not None:
            before[Job("train", trial.key)] = trained
            trained = {Job("train", trial.key)}
        before[Job("eval", trial.key)] = trained
    return before


def run_jobs(before: dict[Job, set[Job]], do: Callable[[Job], bool], workers: int) -> list[Job]:
    """Does every job, at most `workers` at a time; the jobs that failed, or that wait for one that did.

    A failure does not stop the others.
    """
    order: TopologicalSorter[Job] = TopologicalSorter(before)
    order.prepare()
    failed: list[Job] = []
    running: dict[Future[bool], Job] = {}
    with ThreadPoolExecutor(workers) as pool:
        while order.is_active():
            for job in order.get_ready():
                if before[job] & set(failed):
                    failed.append(job)
                    order.done(job)
                else:
                    running[pool.submit(do, job)] = job
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                if not future.result():
                    failed.append(job)
                order.done(job)
    return failed


@dataclass(frozen=True)
class Runner:
    """Does the jobs of trials. finished(): called after every evaluation, by one thread at a time."""

    trials: dict[tuple[str, int], Trial]
    children: Children
    finished: Callable[[], None]
    data: tuple[str, ...] = ()
    say: Callable[[str], None] = lambda text: print(text, flush=True)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, job: Job) -> bool:
        trial, begin = self.trials[job.trial], time.monotonic()
        trial.folder.mkdir(parents=True, exist_ok=True)
        did = self._train(trial) if job.kind == "train" else self._evaluate(trial)
        if did is None:
            self.say(f"{trial.label}: is trained")
            return True
        if did == 0:
            done = "trained" if job.kind == "train" else "evaluated"
            self.say(f"{trial.label}: {done}, {time.monotonic() - begin:.0f} s")
            if job.kind == "eval":
                with self._one:
                    self.finished()
        elif not self.children.ended:
            self.say(f"{trial.label}: {job.kind} failed: {_last_error(trial.folder / 'log.txt')}")
        return did == 0

    def _train(self, trial: Trial) -> int | None:
        """The exit code of the training; None where nothing is left to train."""
        if is_trained(trial.spec):
            return None
        save_spec(trial.spec, trial.folder / "spec.yaml")
        words = [sys.executable, TOOLS / "train.py", "--resume", "--spec", trial.folder / "spec.yaml"]
        return self.children.run(words, trial.folder / "log.txt")

    def _evaluate(self, trial: Trial) -> int:
        changes = [word for change in (*self.data, *trial.eval) for word in ("--set", change)]
        words = [TOOLS / "eval.py", "--alone", "--run", trial.run, "--out", trial.folder / "eval", *changes]
        return self.children.run([sys.executable, *words], trial.folder / "log.txt")


def _last_error(log: Path) -> str:
    """The last line that tells of an error, and the file with the rest."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()] or lines
    return f"{told[-1].strip()} ({log})"
