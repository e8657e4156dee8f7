"""What a launcher tells a process of its place, in the names that torch and DeepSpeed read."""

import re
import socket
from collections.abc import Mapping


def rank_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where they are missing; {} if nothing is to be added.

    deepspeed and torchrun set them. Under `srun` they follow from SLURM's own; otherwise the process is alone.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return {}
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        found = _slurm(environment)
    else:
        found = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    return {key: value for key, value in found.items() if key not in environment}


def first_host(nodes: str) -> str:
    """The first name of a SLURM node list: "gpu[003-007,9],big1" → "gpu003"."""
    prefix, bracket, rest = re.match(r"([^\[,]+)(\[?)(.*)", nodes).groups()
    return prefix + re.match(r"\d+", rest).group() + re.search(r"\]([^,]*)", rest).group(1) if bracket else prefix


def _slurm(environment: Mapping[str, str]) -> dict[str, str]:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_NODELIST"]
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": first_host(nodes),
        # Every process of a job step computes the same port, and steps that share a node different ones.
        "MASTER_PORT": str(20000 + (int(environment["SLURM_JOB_ID"]) * 7 + int(environment.get("SLURM_STEP_ID", 0))) % 20000),
    }


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
