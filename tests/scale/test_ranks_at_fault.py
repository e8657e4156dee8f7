"""What happens to the other processes of a run when one dies, or when a second run is started."""

import signal
import time
from pathlib import Path

import pytest

from tests.engine.launching import launch, losses, relative, start

JOB = {"objective": {"pause": 0.05}, "deepspeed": {"zero_optimization": {"stage": 2}}, "resume": True}


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_dying_rank_ends_the_others_and_the_run_continues(tmp_path):
    job = JOB | {"folder": f"{tmp_path}/run"}
    processes, _ = start([job], ranks=2)
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000005")
    processes[1].send_signal(signal.SIGKILL)
    processes[1].communicate()
    processes[0].communicate(timeout=120)
    assert processes[0].returncode not in (0, None)
    results, text = launch([job], ranks=2)
    assert results[0]["finished"] and "resumed from" in text
    launch([{"folder": f"{tmp_path}/undisturbed"}])
    assert relative(losses(tmp_path / "run"), losses(tmp_path / "undisturbed")) < 1e-5


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_and_the_first_unharmed(tmp_path):
    job = JOB | {"folder": f"{tmp_path}/run", "objective": {"pause": 1.0}}
    processes, _ = start([job])
    wait_for(tmp_path / "run" / "metrics.csv")
    results, _ = launch([job])
    assert results[0]["kind"] == "TrainingError" and "in use by another run" in results[0]["error"]
    assert processes[0].wait(timeout=120) == 0
    assert len(losses(tmp_path / "run")) == 12
