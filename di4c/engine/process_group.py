"""How the processes of a launch meet, part, and stop together."""

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from di4c.engine.launchers import rank_environment
from di4c.errors import LaunchError, TrainingError
from di4c.ranks import Ranks, rank, world_size

STOPPED_BY_SIGNAL = 75
"""Exit code of a run that wrote a checkpoint and stopped because it received SIGTERM (EX_TEMPFAIL: run it again)."""


def start() -> torch.device:
    """Joins the process group and returns this rank's device. Raises LaunchError for an environment that cannot be right."""
    import deepspeed

    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    os.environ |= rank_environment(os.environ)
    device = local_device()
    if not dist.is_initialized():
        # DeepSpeed would ask a compiler what it can build, and build an operator that on a CPU serves inference alone.
        deepspeed.ops.__compatible_ops__ = defaultdict(bool)
        with meeting():
            deepspeed.init_distributed(verbose=False)
        if device.type == "cuda" and world_size() > 1:
            _refuse_shared_gpus(device)
    return device


def on_gpu() -> bool:
    """Whether runs use a GPU: one is seen, and DS_ACCELERATOR=cpu does not say otherwise."""
    return torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"


def local_device() -> torch.device:
    """The GPU of this process's LOCAL_RANK, made the current one; the CPU where no GPU is seen, or DS_ACCELERATOR=cpu says so.

    Where a launcher shows each rank its own GPU alone, that is number 0, for DeepSpeed too. Raises LaunchError for more ranks than GPUs.
    """
    if not on_gpu():
        return torch.device("cpu")
    local, seen = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= seen > 1:
        raise LaunchError(f"LOCAL_RANK={local}, but this process sees {seen} GPUs; start one rank a GPU")
    if local >= seen:
        os.environ["LOCAL_RANK"] = str(local := 0)
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def meeting() -> Iterator[None]:
    """Around what joins the process group: says for whom it waits, and which variable or GPU an error is about (LaunchError)."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    waiting = (
        f"RANK={rank()} of WORLD_SIZE={world_size()} waits for the others at MASTER_ADDR={address}, MASTER_PORT={port} "
        "(if no launcher started them, unset these variables)"
    )
    try:
        with told_when_slow(waiting, first=8.0, by_all=True):
            yield
    except dist.DistNetworkError as error:
        if "EADDRINUSE" in str(error):
            raise LaunchError(
                f"MASTER_PORT={port} is in use on this host, by another run perhaps; choose another one (deepspeed --master_port N, "
                "torchrun --master-port N), or unset it where no launcher is used"
            ) from error
        reason = str(error).partition("\n")[0]
        raise LaunchError(
            f"RANK={rank()} cannot meet the others at MASTER_ADDR={address}, MASTER_PORT={port}: {reason}"
        ) from error
    except dist.DistBackendError as error:
        if "Duplicate GPU" not in str(error):
            raise
        raise LaunchError(f"RANK={rank()}: another rank has the same GPU; {_ONE_RANK_A_GPU}") from error


_ONE_RANK_A_GPU = "start one rank a GPU (deepspeed --num_gpus N), or hide the GPUs to train on the CPU: CUDA_VISIBLE_DEVICES= DS_ACCELERATOR=cpu"


def _refuse_shared_gpus(device: torch.device) -> None:
    """Raises TrainingError on all ranks if two have one GPU, which NCCL would tell at the first exchange. Collective."""
    store = dist.distributed_c10d._get_default_store()
    store.set(f"di4c/gpu/{rank()}", f"{torch.cuda.get_device_properties(device).uuid} on {socket.gethostname()}")
    first: dict[str, int] = {}
    for number in range(world_size()):
        gpu = store.get(f"di4c/gpu/{number}").decode()
        if gpu in first:
            raise TrainingError(f"ranks {first[gpu]} and {number} have the same GPU ({gpu}); {_ONE_RANK_A_GPU}")
        first[gpu] = number


def finish() -> None:
    """Leaves the process group together: without the barrier a rank may fail while another still talks to it."""
    if dist.is_initialized():
        nccl = dist.get_backend() == "nccl"  # which else warns that it has to guess the device
        dist.barrier(device_ids=[torch.cuda.current_device()] if nccl else None)
        dist.destroy_process_group()


@contextmanager
def told_when_slow(what: str, first: float = 4.0, every: float = 15.0, by_all: bool = False) -> Iterator[None]:
    """Prints `what` if the body takes longer than `first` seconds, and again every `every`. By rank 0, or by all."""
    done = threading.Event()

    def tell() -> None:
        began, wait = time.monotonic(), first
        while not done.wait(wait):
            print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)
            wait = every

    if by_all or rank() == 0:
        threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextmanager
def launched_ranks(
    device: torch.device | str | None = None, timeout: timedelta = timedelta(hours=2)
) -> Iterator[Ranks]:
    """The ranks that a launcher (deepspeed, torchrun, srun) started; one rank without a launcher.

    device: None for this process's GPU, if there is one.

    The ranks wait for one another as long as the slowest cell takes, hence the long timeout. Raises LaunchError for an environment
    that cannot be right.
    """
    place = rank_environment(os.environ)
    if int((os.environ | place)["WORLD_SIZE"]) > 1:
        os.environ |= place
    chosen = str(device or local_device())
    if chosen.startswith("cuda"):
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks(device=chosen)
        return
    started_here = not dist.is_initialized()
    if started_here:
        with meeting():
            dist.init_process_group("nccl" if chosen.startswith("cuda") else "gloo", timeout=timeout)
    yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    if started_here:  # not in a `finally`: after an error the others never reach the barrier
        dist.barrier()
        dist.destroy_process_group()


class StopSignal:
    """SIGTERM, noticed by all ranks at the same step.

    The answer of a step's poll is the flags of the step before, exchanged meanwhile on the host, so that no step waits
    for the device or for a slow rank.
    """

    def __init__(self):
        self._seen = False
        self._group = dist.new_group(backend="gloo") if world_size() > 1 else None
        self._pending: tuple[Any, torch.Tensor] | None = None
        self._previous = signal.signal(signal.SIGTERM, self._note)

    def poll(self) -> bool:
        """Whether some rank had received SIGTERM by its last poll; called once a step by every rank."""
        if self._group is None:
            return self._seen
        stopped = self._wait()
        flag = torch.tensor([float(self._seen)])
        self._pending = (dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True), flag)
        return stopped

    def settle(self) -> None:
        """Completes the exchange, once all ranks have ended their steps."""
        self._wait()
        self._pending = None

    def close(self) -> None:
        """Restores the former handler; waits for nobody, since it also follows errors."""
        signal.signal(signal.SIGTERM, self._previous)

    def _wait(self) -> bool:
        if self._pending is None:
            return False
        work, flag = self._pending
        work.wait()
        return bool(flag.item())

    def _note(self, number: int, frame: object) -> None:
        self._seen = True
