"""Whole trainings on the device, each in a process of its own: ZeRO's stages, bit for bit again, killed and resumed."""

import signal
import time
from pathlib import Path

import torch

from tests.engine.launching import Process, exported, losses, relative, start, train_specs
from tests.scale.systems import DIT, di4c, distilled, job

WORKER = "tests.engine.shared_base_worker"
STEPS = 24


def sections(**changes) -> dict:
    """The digits' student with dropout in its trunk, all three terms of the loss."""
    return distilled("token", DIT | {"dropout": 0.1}, objective=di4c(**changes))


def test_all_stages_train_alike_on_one_device(slow_on_cpu, tmp_path):
    """fp32 within 1e-4 of stage 0, as on CPUs; bf16 within 1 %."""
    cells = {
        f"{stage}-{precision}": (stage, precision)
        for stage in range(4)
        for precision in ("fp32", "bf16")
        if stage or precision == "fp32"
    }
    jobs = [
        job(sections(), str(tmp_path / name), {"stage": stage}, precision=precision)
        for name, (stage, precision) in cells.items()
    ]
    train_specs(jobs)
    for name, (_, precision) in cells.items():
        difference = relative(losses(tmp_path / name), losses(tmp_path / "0-fp32"))
        assert difference < (1e-4 if precision == "fp32" else 1e-2), name


def test_a_deterministic_run_has_the_same_bits_again_killed_and_resumed(slow_on_cpu, tmp_path):
    """Every loss and every exported weight."""
    options = {"deterministic": True, "steps": STEPS, "checkpoint_every": 8, "batch_size": 8}
    one, again, killed = (
        job(sections(), str(tmp_path / name), {"stage": 1}, **options) for name in ("one", "again", "killed")
    )
    processes, _ = start([killed], module=WORKER)
    wait_for(tmp_path / "killed/checkpoints/step-00000008", processes[0])
    processes[0].send_signal(signal.SIGKILL)
    processes[0].communicate()
    train_specs([one, again, killed | {"resume": True}])
    for name in ("again", "killed"):
        assert losses(tmp_path / name) == losses(tmp_path / "one"), name
        weights = exported(tmp_path / name)
        assert all(torch.equal(weights[key], value) for key, value in exported(tmp_path / "one").items()), name


def wait_for(path: Path, process: Process) -> None:
    """Until the path is there; the process must not end before."""
    deadline = time.monotonic() + 120
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate()[0])
        time.sleep(0.005)
