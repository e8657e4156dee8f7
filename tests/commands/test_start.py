"""`di4c train`: here, or by DeepSpeed's launcher."""

import contextlib
import os
import sys

import pytest

from di4c.commands import start, train
from tests.config.specs import DISTILL, written


@pytest.fixture
def calls(monkeypatch):
    """What was done instead of training: ("exec", command) or ("train", arguments)."""
    made = []
    for key in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)

    def replaced(program, command):
        made.append(("exec", command))
        raise SystemExit  # as exec, it does not come back

    monkeypatch.setattr(os, "execv", replaced)
    monkeypatch.setattr(train, "main", lambda arguments, prog: made.append(("train", arguments)))
    return made


@pytest.fixture
def spec(tmp_path):
    return str(written(tmp_path, DISTILL))


def run(*arguments):
    with contextlib.suppress(SystemExit):
        start.main(list(arguments))


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_device_needs_no_launcher(calls, spec, monkeypatch, gpus):
    monkeypatch.setattr(start, "gpus", lambda: gpus)
    run("--spec", spec, "--set", "train.steps=7", "--resume", "--set", "seed=3")
    assert calls == [("train", ["--spec", spec, "--set", "train.steps=7", "--set", "seed=3", "--resume"])]


@pytest.mark.parametrize(
    ("gpus", "given", "processes"), [(4, [], "4"), (0, ["--num-gpus", "2"], "2"), (8, ["--num-gpus", "1"], "1")]
)
def test_several_gpus_are_given_to_the_launcher(calls, spec, monkeypatch, gpus, given, processes):
    monkeypatch.setattr(start, "gpus", lambda: gpus)
    run("--spec", spec, "--set", "seed=3", *given)
    ((what, command),) = calls
    assert what == "exec" and command[:5] == [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        "--num_gpus",
        processes,
    ]
    assert command[-6:] == ["di4c", "train", "--spec", spec, "--set", "seed=3"] and "--resume" not in command


@pytest.mark.parametrize(
    "variable", [{"RANK": "0"}, {"WORLD_SIZE": "2"}, {"SLURM_STEP_NUM_TASKS": "4"}, {"OMPI_COMM_WORLD_SIZE": "2"}]
)
def test_a_process_that_was_started_starts_no_further(calls, spec, monkeypatch, variable):
    monkeypatch.setattr(start, "gpus", lambda: 4)
    for key, value in variable.items():
        monkeypatch.setenv(key, value)
    run("--spec", spec, "--num-gpus", "4")
    assert calls == [("train", ["--spec", spec])]


def test_a_shell_of_one_task_is_no_launcher():
    assert not start.started({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
