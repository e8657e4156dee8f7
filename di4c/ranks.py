"""What the ranks of a launch do together, from anywhere in the project; a process by itself is rank 0 of 1."""

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from di4c.errors import Di4CError, TrainingError, describe_os_error

T = TypeVar("T")


def rank() -> int:
    """This process's rank; 0 without a process group, or the launcher's number before there is one."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


def combined(*parts: Tensor, op: Any = None) -> tuple[Tensor, ...]:
    """The parts summed over all ranks (op: dist.ReduceOp.MIN, say), in one exchange, as new tensors. Collective."""
    if world_size() == 1:
        return parts
    joined = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(joined, op=op or dist.ReduceOp.SUM)
    return tuple(p.view_as(part) for p, part in zip(joined.split([q.numel() for q in parts]), parts, strict=True))


def least(values: dict[str, int], device: torch.device) -> dict[str, int]:
    """The least of all ranks' values, by name. Collective; the ranks name the same."""
    if not values or world_size() == 1:
        return values
    (found,) = combined(torch.tensor([values[name] for name in sorted(values)], device=device), op=dist.ReduceOp.MIN)
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
