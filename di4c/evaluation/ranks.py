"""Several processes that share one evaluation."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from di4c.engine.launchers import rank_environment
from di4c.engine.ranks import local_device, meeting
from di4c.evaluation.arguments import device_of

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's rank among `size`, and the device it works on."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This rank's contiguous part of `count` batches; the first rank, which tells of the time they take, has one if any has."""
        return range(-(-self.rank * count // self.size), -(-(self.rank + 1) * count // self.size))

    def broadcast(self, value: T) -> T:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device(self.device))
        return box[0]

    def gather_rows(self, x: Tensor, counts: list[int]) -> Tensor:
        """The rows [n_r, D] of all ranks in order of rank: [Σ n_r, D] on the CPU; counts: n_r of every rank."""
        if self.size == 1:
            return x
        padded = torch.zeros(max(counts), *x.shape[1:], dtype=x.dtype, device=self.device)
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).cpu()

    def total(self, count: int) -> int:
        """The sum of all ranks' counts, on every rank."""
        if self.size == 1:
            return count
        counts = torch.tensor(count, device=self.device)
        dist.all_reduce(counts)
        return int(counts)

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def launched_ranks(device: str | None = None, timeout: timedelta = timedelta(hours=2)) -> Iterator[Ranks]:
    """The ranks that a launcher (deepspeed, torchrun, srun) started; one rank without a launcher.

    The ranks wait for one another as long as the slowest cell takes, hence the long timeout. Raises LaunchError for an environment
    that cannot be right.
    """
    place = rank_environment(os.environ)
    if int((os.environ | place)["WORLD_SIZE"]) > 1:
        os.environ |= place
    chosen = str(local_device()) if device in (None, "cuda") else str(device_of(device))
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
