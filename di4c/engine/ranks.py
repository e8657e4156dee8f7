"""What the ranks do together: start, agree on failures, stop."""

import contextlib
import io
import logging
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from di4c.engine.extensions import load_communication_operator
from di4c.engine.launchers import rank_environment
from di4c.errors import Di4CError, TrainingError

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
    """Joins the process group and returns this rank's device."""
    import deepspeed

    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    os.environ |= rank_environment(os.environ)
    if not dist.is_initialized():
        with told_when_slow("DeepSpeed is compiling a small C++ extension (once an environment, up to a minute)"):
            load_communication_operator()
        with contextlib.redirect_stdout(io.StringIO()):  # it tells at every start that the operator is built
            deepspeed.init_distributed(verbose=False)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def finish() -> None:
    """Leaves the process group together: without the barrier a rank may fail while another still talks to it."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


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
def told_when_slow(what: str, first: float = 4.0, every: float = 15.0) -> Iterator[None]:
    """Prints `what` if the body takes longer than `first` seconds, and again every `every`. Rank 0."""
    done = threading.Event()

    def tell() -> None:
        began, wait = time.monotonic(), first
        while not done.wait(wait):
            print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)
            wait = every

    if rank() == 0:
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
