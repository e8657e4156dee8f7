"""A small real training through the command line: a teacher of digits, a student that is killed and resumed, samples of it."""

import csv
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # of DeepSpeed's requirements

from di4c.engine.launchers import free_port
from gpu_checks.record import Record

TOP = Path(__file__).resolve().parents[3]
STEPS, EVERY = {"cuda": 300, "cpu": 30}, {"cuda": 100, "cpu": 10}
"""Of the teacher and of the student; and between checkpoints. The student is killed once its first one is there."""


def run(folder: Path, *, cpu: bool) -> None:
    """Trains both and stores of each its losses, speed, and whether what must hold holds."""
    device = "cpu" if cpu else "cuda"
    record = Record(folder / "train.json", device)
    teacher, student = folder / "train/teacher", folder / "train/student"
    common = [f"train.steps={STEPS[device]}", f"train.checkpoint_every={EVERY[device]}", "train.schedule.warmup=5"]
    common += ["train.log_every=5", *(["train.batch_size=16"] if cpu else [])]
    record.add("teacher", trained("digits-teacher", teacher, common))
    of_the_student = [*common, f"teacher.run={teacher}", "train.diagnostics_every=0"]
    record.add("kill", killed(student, of_the_student, EVERY[device]))
    record.add("student", trained("digits-student", student, of_the_student, "--resume"))
    record.add("samples", sampled(student, device))
    record.finish()


def command(spec: str, run_folder: Path, settings: list[str], *options: str) -> list[str]:
    """`deepspeed`, wherever its script is installed, on one device; the run's folder and other settings by --set."""
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "1", "--master_port", free_port()]
    changes = [part for setting in [f"train.run={run_folder}", *settings] for part in ("--set", setting)]
    return [*launcher, "tools/train.py", "--spec", f"tools/specs/{spec}.yaml", *changes, *options]


def trained(spec: str, run_folder: Path, settings: list[str], *options: str) -> dict:
    """A whole run: its losses and seconds; `ok` if it ended well, its record has every report once and every loss is finite."""
    begin = time.monotonic()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command(spec, run_folder, settings, *options), cwd=TOP, **streams)
    found = {"exit_code": done.returncode, "seconds": round(time.monotonic() - begin, 1)}
    if done.returncode:
        return found | {"ok": False, "error": done.stdout[-2000:]}
    return found | reports(run_folder)


def reports(run_folder: Path) -> dict:
    """What metrics.csv says: the first and last loss, examples a second; `ok` if its steps rise and its losses are finite."""
    with open(run_folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss")]
    steps, losses = [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows]
    ok = steps == sorted(set(steps)) and all(map(math.isfinite, losses)) and (run_folder / "export").is_dir()
    return {"ok": ok, "steps": steps[-1], "first_loss": losses[0], "last_loss": losses[-1]}


def killed(run_folder: Path, settings: list[str], checkpoint: int) -> dict:
    """Starts the student and kills it with all its processes (SIGKILL) once that checkpoint is written."""
    wanted = run_folder / f"checkpoints/step-{checkpoint:08d}"
    log = run_folder.with_suffix(".log")
    with open(log, "w") as output:
        process = psutil.Popen(
            command("digits-student", run_folder, settings), cwd=TOP, stdout=output, stderr=subprocess.STDOUT
        )
        while not wanted.exists() and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is None:
            for each in [*process.children(recursive=True), process]:
                each.kill()
        process.wait()
    ok = wanted.exists() and process.returncode == -signal.SIGKILL
    return {"ok": ok, "checkpoint": wanted.name} | ({} if ok else {"error": log.read_text()[-2000:]})


def sampled(run_folder: Path, device: str) -> dict:
    """Samples of the student in two steps; `ok` if they are digits' tokens, none of them the mask."""
    import di4c

    tokens = di4c.load(run_folder, device=device).sample(8, steps=2, cond=7, seed=0)
    return {"ok": tuple(tokens.shape) == (8, 64) and int(tokens.min()) >= 0 and int(tokens.max()) <= 16}
