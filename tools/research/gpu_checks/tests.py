"""The tests of tests/gpu: on the GPU those with the marker, on a CPU their small variants."""

import importlib.util
import os
from pathlib import Path

import pytest

from gpu_checks.record import Record

TOP = Path(__file__).resolve().parents[3]
MOST_PROCESSES = 8
"""Of pytest-xdist where it is installed, half as many as there are cores: most of the time goes into compiling kernels, on the host."""
LONGEST = "tests/gpu/test_training.py"
"""What takes longest begins first."""


def run(folder: Path, *, cpu: bool) -> None:
    """Runs the tests and stores each one's outcome."""
    os.environ["DI4C_TESTS_ON"] = "cpu" if cpu else "gpu"
    os.chdir(TOP)
    record = Record(folder / "tests.json", "cpu" if cpu else "cuda")
    chosen = ["-m", "not gpu and not slow" if cpu else "gpu", "-q", "-p", "no:cacheprovider", LONGEST, "tests/gpu"]
    if not cpu and importlib.util.find_spec("xdist"):
        chosen += ["-n", str(min(MOST_PROCESSES, max(1, len(os.sched_getaffinity(0)) // 2))), "--dist", "worksteal"]
    if pytest.main(chosen, plugins=[Outcomes(record)]) in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        record.finish()


class Outcomes:
    """pytest plugin: stores every test's outcome, seconds, what it measured (record_property) and, if it failed, where."""

    def __init__(self, record: Record):
        self.record = record

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        outcome = {"outcome": report.outcome, "seconds": round(report.duration, 2), **dict(report.user_properties)}
        if report.failed:
            outcome["error"] = report.longreprtext[-2000:]
        self.record.add(report.nodeid, outcome)
