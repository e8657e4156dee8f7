"""Ranks from what launchers tell."""

import pytest

from di4c.engine.launchers import first_host, rank_environment

STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2",
        "SLURM_STEP_NODELIST": "gpu[07-08]"}  # fmt: skip


def test_a_launchers_ranks_are_left_alone():
    assert rank_environment({"RANK": "1", "WORLD_SIZE": "2"} | STEP) == {}


def test_a_process_without_launcher_is_alone():
    found = rank_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"})  # a batch script outside srun
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == ("0", "1", "0")
    assert "MASTER_PORT" not in rank_environment({"MASTER_PORT": "5"})


def test_srun_gives_ranks_that_meet_at_one_address():
    found = rank_environment(STEP)
    other = rank_environment(STEP | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"], found["MASTER_ADDR"]) == ("5", "8", "1", "gpu07")
    assert found["MASTER_PORT"] == other["MASTER_PORT"] != rank_environment(STEP | {"SLURM_STEP_ID": "3"})["MASTER_PORT"]


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[003-007,9],big1", "gpu003"), ("node1", "node1"), ("a-1,b-2", "a-1"), ("n[5,7]-ib", "n5-ib")],
)
def test_first_host(nodes, first):
    assert first_host(nodes) == first
