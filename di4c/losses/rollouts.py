"""Data-free distillation: the reference law r_t is the teacher's own samples, noised, instead of the data."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from di4c.contracts import Batch, Draws, Sampler, Teacher, placed
from di4c.errors import DataError, SpecError
from di4c.files import replacing
from di4c.fingerprint import fingerprint


@dataclass(frozen=True)
class Rollouts:
    """`number` samples of the teacher by its sampler in `steps` steps, kept in the file `cache` (null: in memory only)."""

    number: int
    steps: int
    cache: Path | None = None
    batch_size: int = 256

    def __post_init__(self):
        if min(self.number, self.steps, self.batch_size) < 1:
            raise SpecError(f"rollouts: number, steps and batch_size are at least 1; found {self}")


class Pool(Batch):
    """Teacher samples x_0 [n, D] with the labels [n] they were drawn for, or None."""

    def batch(self, draws: Draws) -> Batch:
        """One sample of the pool, with its label, for every example of `draws`."""
        index = replace(draws.child("rollout"), device=self.x_0.device).integers(len(self.x_0))
        return Batch(*(None if x is None else placed(x[index], draws.device) for x in (self.x_0, self.cond)))


def load_or_roll_out(
    options: Rollouts,
    teacher: Teacher,
    sampler: Sampler,
    num_classes: int | None,
    draws: Draws,
    rank: int = 0,
    ranks: int = 1,
) -> Pool:
    """The pool of the cache if it is there and made just so, else a new one; all ranks return the same pool.

    Each rank draws its share, which is empty where there are fewer samples than ranks; they are gathered by torch.distributed. Labels
    are uniform over the classes. DataError if the cache holds samples of another teacher (network, λ head, λ sampler, process), by another
    sampler or with other options.
    """
    # Steps, seed and labels decide as well; the batch size does not.
    made_by = fingerprint(options.number, options.steps, draws.seed, draws.path, num_classes, teacher, sampler)
    if options.cache is not None and options.cache.is_file():
        return _read(options.cache, made_by)
    share = range(options.number * rank // ranks, options.number * (rank + 1) // ranks)

    @torch.no_grad()
    def roll_out(first: int) -> tuple[Tensor, Tensor]:
        """(x_0 [b, D], labels [b], −1 where there are no classes) of a batch of the share."""
        some = draws.rows(first, min(first + options.batch_size, share.stop))
        cond = some.child("label").integers(num_classes) if num_classes else None
        x_1 = teacher.process.prior(teacher.num_positions, some.child("x_1"))
        x_0 = sampler.sample(teacher.denoiser(some.child("teacher")), x_1, options.steps, cond, some.child("steps"))
        return x_0, torch.full((some.count,), -1, device=some.device) if cond is None else cond

    parts = [roll_out(first) for first in share[:: options.batch_size]]
    # of a rank without a share
    nothing = torch.empty(0, teacher.num_positions, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    x_0, cond = (torch.cat([part.cpu() for part in column]) for column in zip(nothing, *parts, strict=True))
    x_0, cond = _gathered(x_0, cond, ranks)
    pool = Pool(x_0, cond if num_classes else None)
    if options.cache is not None and rank == 0:
        _write(options.cache, pool, made_by)
    return pool


def _gathered(x_0: Tensor, cond: Tensor, ranks: int) -> tuple[Tensor, Tensor]:
    if ranks == 1:
        return x_0, cond
    shares: list = [None] * ranks
    torch.distributed.all_gather_object(shares, (x_0, cond))
    return torch.cat([x for x, _ in shares]), torch.cat([c for _, c in shares])


def _read(path: Path, made_by: str) -> Pool:
    try:
        content = torch.load(path, weights_only=True)
        pool, found = Pool(content["x_0"], content["cond"]), content["made_by"]
    except Exception as error:  # a pickle can fail in any way
        raise DataError(
            f"{path}: not a readable cache of rollouts ({error!r}); remove it to draw them again"
        ) from error
    if found != made_by:
        raise DataError(
            f"{path}: rollouts of another teacher, process, sampler, seed or number; remove it, or name another cache"
        )
    return pool


def _write(path: Path, pool: Pool, made_by: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            torch.save({"x_0": pool.x_0, "cond": pool.cond, "made_by": made_by}, unfinished)
    except (OSError, RuntimeError) as error:  # torch's own error, where its file cannot be opened or written
        raise DataError(f"{path}: the rollouts cannot be kept there ({error}); name another cache, or none") from error
