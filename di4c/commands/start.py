"""`di4c train`: trains in this process, or hands the machine's GPUs to DeepSpeed's launcher, which runs di4c.commands.train on each."""

import os
import sys
from collections.abc import Mapping

from di4c.command_line import number, reporting
from di4c.commands import train
from di4c.config.spec import read_spec
from di4c.engine.launchers import free_port


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    parser = train.parser(prog)
    parser.add_argument(
        "--num-gpus",
        type=number(1),
        metavar="N",
        help="processes to start, one a GPU (without GPUs they share the CPUs; default: every GPU)",
    )
    options = parser.parse_args(arguments)
    rest = [part for override in options.set for part in ("--set", override)] + ["--resume"] * options.resume
    given = ["--spec", options.spec, *rest]
    if not started(os.environ):
        with reporting():
            read_spec(options.spec, options.set)  # a mistake is told once, and before torch is imported
        count = options.num_gpus or gpus()
        if options.num_gpus or count > 1:
            command = launcher(count, given)
            os.execv(command[0], command)
    train.main(given, prog)


def started(environment: Mapping[str, str]) -> bool:
    """Whether a launcher has started this process; what is wrong with its variables `train` tells."""
    several = any(environment.get(key, "1") != "1" for key in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return "RANK" in environment or "WORLD_SIZE" in environment or several


def gpus() -> int:
    """How many GPUs this process sees and may use."""
    import torch

    from di4c.engine.process_group import on_gpu

    return torch.cuda.device_count() if on_gpu() else 0


def launcher(count: int, arguments: list[str]) -> list[str]:
    """The command that trains on `count` GPUs of this machine: the program, then its arguments."""
    options = ["--num_gpus", str(count), "--master_port", free_port(), "--log_level", "error", "--no_local_rank"]
    return [sys.executable, "-m", "deepspeed.launcher.runner", *options, "--module", "di4c", "train", *arguments]
