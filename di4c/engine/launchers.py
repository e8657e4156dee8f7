"""What a launcher tells a process of its place, in the names that torch and DeepSpeed read."""

import re
import socket
from collections.abc import Mapping

from di4c.errors import LaunchError

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
"""Variables of whole numbers."""


def rank_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where they are missing; {} if nothing is to be added.

    deepspeed and torchrun set them. Under `srun` they follow from SLURM's own; otherwise the process is alone. Raises LaunchError that
    names the variable where one is missing or cannot be right.
    """
    _check(environment)
    if "RANK" not in environment and _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1:
        found = _slurm(environment)
    else:
        found = {
            "RANK": "0",
            "WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free_port(),
        }
    return {key: value for key, value in found.items() if key not in environment}


def told_rank(environment: Mapping[str, str]) -> int:
    """RANK where a launcher told it, with WORLD_SIZE; else 0, for a process that has to speak for itself."""
    rank, size = environment.get("RANK", ""), environment.get("WORLD_SIZE", "")
    return int(rank) if rank.isdecimal() and size.isdecimal() and int(size) > 1 else 0


def first_host(nodes: str) -> str:
    """The first name of a SLURM node list: "gpu[003-007,9],big1" → "gpu003"."""
    prefix, bracket, rest = re.match(r"([^\[,]+)(\[?)(.*)", nodes).groups()
    return prefix + re.match(r"\d+", rest).group() + re.search(r"\]([^,]*)", rest).group(1) if bracket else prefix


def _check(environment: Mapping[str, str]) -> None:
    """Raises LaunchError for a place that no launcher gives: what an earlier command left in the shell, mostly."""
    for key in PLACE:
        _number(environment, key, 0)
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
    for key, other, alone in (("RANK", "WORLD_SIZE", "0"), ("WORLD_SIZE", "RANK", "1")):
        if key in environment and other not in environment and (tasks > 1 or environment[key] != alone):
            raise _wrong(environment, key, f"it stands without {other}")
    rank, size = _number(environment, "RANK", 0), _number(environment, "WORLD_SIZE", 1)
    if _number(environment, "MASTER_PORT", 0) > 65535:
        raise _wrong(environment, "MASTER_PORT", "at most 65535 is expected")
    if rank >= size:
        raise _wrong(environment, "RANK", f"it is to be less than WORLD_SIZE={size}")
    for key in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if size > 1 else ():
        if not environment.get(key):
            raise _wrong(environment, key, f"needed with WORLD_SIZE={size}")
    if (
        "RANK" not in environment
        and "SLURM_STEP_NUM_TASKS" not in environment
        and _number(environment, "OMPI_COMM_WORLD_SIZE", 1) > 1
    ):
        raise _wrong(environment, "RANK", "mpirun does not set it")


def _slurm(environment: Mapping[str, str]) -> dict[str, str]:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST")
    if not nodes:
        raise _wrong(environment, "SLURM_STEP_NODELIST", "needed with SLURM_STEP_NUM_TASKS")
    job, step = _number(environment, "SLURM_JOB_ID"), _number(environment, "SLURM_STEP_ID", 0)
    return {
        "RANK": str(_number(environment, "SLURM_PROCID")),
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": str(_number(environment, "SLURM_LOCALID")),
        "MASTER_ADDR": first_host(nodes),
        # Every process of a job step computes the same port, and steps that share a node different ones.
        "MASTER_PORT": str(20000 + (job * 7 + step) % 20000),
    }


_REMEDY = "start the command by a launcher (deepspeed, torchrun, srun), or unset the variables of an earlier one"


def _number(environment: Mapping[str, str], key: str, default: int | None = None) -> int:
    if key not in environment and default is not None:
        return default
    if not re.fullmatch(r"\d+", environment.get(key, "")):
        raise _wrong(environment, key, "a whole number is expected")
    return int(environment[key])


def _wrong(environment: Mapping[str, str], key: str, why: str) -> LaunchError:
    found = f"{key}={environment[key]}" if key in environment else f"{key} is not set"
    return LaunchError(f"environment: {found}: {why}; {_REMEDY}")


def free_port() -> str:
    """A port of this host that nothing listens at now, as text."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
