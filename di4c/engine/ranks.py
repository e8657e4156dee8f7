"""What the ranks do together: start, agree on failures, stop."""

import logging
import os
import pickle
import signal
import socket
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from di4c.engine.launchers import rank_environment
from di4c.errors import Di4CError, LaunchError, TrainingError

T = TypeVar("T")
STOPPED_BY_SIGNAL = 75
"""Exit code of a run that wrote a checkpoint and stopped because it received SIGTERM (EX_TEMPFAIL: run it again)."""


def rank() -> int:
    """This process's rank; 0 without a process group, or the launcher's number before there is one."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


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


def least(values: dict[str, int], device: torch.device) -> dict[str, int]:
    """The least of all ranks' values, by name. Collective; the ranks name the same."""
    if not values or world_size() == 1:
        return values
    found = torch.tensor([values[name] for name in sorted(values)], device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MIN)
    return dict(zip(sorted(values), found.tolist(), strict=True))


def on_rank_zero(action: Callable[[], T]) -> T:
    """`action()` of rank 0, its result given to all ranks; a Di4CError or OSError there is raised on all."""
    result: Any = None
    if rank() == 0:
        try:
            result = (True, action())
        except Di4CError as error:
            result = (False, error)
        except OSError as error:
            result = (False, TrainingError(describe_os_error(error)))
    if world_size() > 1:
        box = [pickle.dumps(result) if rank() == 0 else None]
        dist.broadcast_object_list(box, src=0)
        result = pickle.loads(box[0])
    good, value = result
    if good:
        return value
    raise value


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


def describe_os_error(error: OSError) -> str:
    """One sentence about a failed write."""
    where = f" at {error.filename}" if error.filename else ""
    return f"cannot write{where}: {error.strerror or error}; free some space or choose another folder, then --resume"


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
