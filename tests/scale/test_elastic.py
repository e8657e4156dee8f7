"""A real student is killed, goes on at another stage and number of ranks, is killed again and goes back."""

import signal
import time
from pathlib import Path

import pytest

from tests.engine.launching import launch, losses, relative, start
from tests.scale.cells import STEPS

MODULE = "tests.scale.cells"
CELL = {"precision": "fp32", "offload": False, "head": "token"}


def killed_after(checkpoint: Path, job: dict, ranks: int) -> None:
    """Runs the job until the checkpoint appears, then kills all its processes."""
    processes, _ = start([job], ranks, MODULE)
    deadline = time.monotonic() + 300
    while not checkpoint.exists():
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes), f"{checkpoint} did not appear"
        time.sleep(0.002)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()


@pytest.mark.slow
def test_two_ranks_of_stage_3_become_one_of_stage_1_and_two_again(tmp_path):
    run = {"folder": f"{tmp_path}/run", "resume": True} | CELL
    checkpoints = tmp_path / "run" / "checkpoints"
    killed_after(checkpoints / "step-00000010", run | {"stage": 3}, ranks=2)
    killed_after(checkpoints / "step-00000020", run | {"stage": 1}, ranks=1)
    results, text = launch([run | {"stage": 3}], 2, module=MODULE)
    assert results[0].get("finished") and "resumed from" in text
    launch([{"folder": f"{tmp_path}/undisturbed", "stage": 0} | CELL], module=MODULE)
    found, expected = losses(tmp_path / "run"), losses(tmp_path / "undisturbed")
    assert len(found) == STEPS and relative(found, expected) < 1e-4
