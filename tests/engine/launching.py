"""Starts tests.engine.worker, or another module of that kind, on one or more ranks, as a launcher would."""

import atexit
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.devices import CHOICE
from tests.forked import Forked

TOP = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))
DEEPSPEED = (sys.executable, "-m", "deepspeed.launcher.runner")
"""The command `deepspeed`, wherever its script is installed."""


Process = Forked | subprocess.Popen


def start(jobs: list[dict], ranks: int = 1, module: str = "tests.engine.worker") -> tuple[list[Process], Path]:
    """The processes, one a rank, and the file that will hold the results."""
    folder = Path(tempfile.mkdtemp(prefix="di4c-jobs-"))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    out = folder / "results.json"
    shared = {"WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": 1}
    processes = []
    for rank in range(ranks):
        variables = {key: str(value) for key, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        processes.append(
            run_module([module, str(folder / "jobs.json"), str(out)], variables, folder / f"output-{rank}")
        )
    atexit.register(lambda: [process.kill() for process in processes if process.poll() is None])
    return processes, out


def run_module(command: list[str], variables: dict[str, str], output: Path) -> Process:
    """`python -m COMMAND…` in this repository, with these variables in the environment as well.

    Forked, but for the tests of a GPU, since CUDA does not survive a fork.
    """
    env = os.environ | variables
    if env.get(CHOICE) == "cpu":
        return Forked(command, env=env, cwd=TOP, output=output)
    return subprocess.Popen(
        [sys.executable, "-m", *command], env=env, cwd=TOP, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def launch(
    jobs: list[dict], ranks: int = 1, timeout: float = 600, module: str = "tests.engine.worker"
) -> tuple[list[dict], str]:
    """The results of the jobs and what rank 0 printed."""
    processes, out = start(jobs, ranks, module)
    texts = [process.communicate(timeout=timeout)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(texts)
    return json.loads(out.read_text()), texts[0]


def train_specs(jobs: list[dict], ranks: int = 1, timeout: float = 600) -> None:
    """Trains the specs of tests.engine.shared_base_worker's jobs one after another, in one process a rank."""
    processes, _ = start(jobs, ranks, "tests.engine.shared_base_worker")
    texts = [process.communicate(timeout=timeout)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(texts)


def work(perform: Callable[[dict], dict]) -> None:
    """What a module of that kind does when it is run: performs the jobs on every rank; rank 0 writes the results."""
    from di4c import ranks
    from di4c.engine import process_group

    jobs, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    process_group.start()
    results = [perform(job) for job in jobs]
    if ranks.rank() == 0:
        out.write_text(json.dumps(results))
    process_group.finish()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def losses(folder: Path) -> list[float]:
    """The losses of metrics.csv, checked to be of consecutive reports."""
    with open(Path(folder) / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["step"]) for r in rows] == sorted({int(r["step"]) for r in rows})
    return [float(r["loss"]) for r in rows if r["loss"]]


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "export" / "model.safetensors")


def relative(a: list[float], b: list[float]) -> float:
    """The largest relative difference of two loss trajectories."""
    assert len(a) == len(b) > 0
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))
