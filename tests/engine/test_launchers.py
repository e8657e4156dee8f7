"""Ranks from what launchers tell."""

import pytest

from di4c.engine.launchers import first_host, rank_environment
from di4c.errors import LaunchError

STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2",
        "SLURM_STEP_NODELIST": "gpu[07-08]"}  # fmt: skip
GIVEN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07", "MASTER_PORT": "29500"}


def without(values: dict, *keys: str) -> dict:
    return {key: value for key, value in values.items() if key not in keys}


def test_a_launchers_ranks_are_left_alone():
    assert rank_environment(GIVEN | STEP) == {}


def test_a_process_without_launcher_is_alone():
    found = rank_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"})  # a batch script outside srun
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == ("0", "1", "0")
    assert "MASTER_PORT" not in rank_environment({"MASTER_PORT": "5"})
    assert rank_environment({"RANK": "0"})["WORLD_SIZE"] == "1" and rank_environment({"WORLD_SIZE": "1"})["RANK"] == "0"
    assert {"LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} == rank_environment({"RANK": "0", "WORLD_SIZE": "1"}).keys()


def test_srun_gives_ranks_that_meet_at_one_address():
    found = rank_environment(STEP)
    other = rank_environment(STEP | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"], found["MASTER_ADDR"]) == ("5", "8", "1", "gpu07")
    assert (
        found["MASTER_PORT"] == other["MASTER_PORT"] != rank_environment(STEP | {"SLURM_STEP_ID": "3"})["MASTER_PORT"]
    )


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"RANK": ""}, "RANK=: a whole number is expected"),
        (GIVEN | {"RANK": "first"}, "RANK=first: a whole number is expected"),
        (GIVEN | {"WORLD_SIZE": "-1"}, "WORLD_SIZE=-1: a whole number"),
        (GIVEN | {"LOCAL_RANK": ""}, "LOCAL_RANK=: a whole number"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT=http: a whole number"),
        ({"RANK": "1"}, "RANK=1: it stands without WORLD_SIZE"),
        ({"RANK": "0"} | STEP, "RANK=0: it stands without WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2: it stands without RANK"),
        (GIVEN | {"RANK": "2"}, "RANK=2: it is to be less than WORLD_SIZE=2"),
        (without(GIVEN, "MASTER_ADDR"), "MASTER_ADDR is not set: needed with WORLD_SIZE=2"),
        (GIVEN | {"MASTER_ADDR": ""}, "MASTER_ADDR=: needed with WORLD_SIZE=2"),
        (without(GIVEN, "LOCAL_RANK"), "LOCAL_RANK is not set: needed with WORLD_SIZE=2"),
        (without(STEP, "SLURM_PROCID"), "SLURM_PROCID is not set"),
        (without(STEP, "SLURM_STEP_NODELIST"), "SLURM_STEP_NODELIST is not set"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "RANK is not set: mpirun does not set it"),
    ],
)
def test_trouble_28_a_variable_that_cannot_be_right_is_named(environment, told):
    with pytest.raises(LaunchError, match="unset the variables of an earlier one") as raised:
        rank_environment(environment)
    assert f"environment: {told}" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[003-007,9],big1", "gpu003"), ("node1", "node1"), ("a-1,b-2", "a-1"), ("n[5,7]-ib", "n5-ib")],
)
def test_first_host(nodes, first):
    assert first_host(nodes) == first
