"""NaN or infinite losses: noticed without waiting for the device, and never saved."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from di4c import ranks
from di4c.engine.shards import Shards
from di4c.engine.stream import ExampleStream
from di4c.errors import TrainingError

_NEVER = 2**62
MOST_SKIPS_IN_A_ROW = 100


class StopOnNonFinite:
    """Remembers on the device the first step whose loss is not finite; `check` reads it. warn: told of skipped steps."""

    def __init__(self, shards: Shards, stream: ExampleStream, folder: Path, warn: Callable[[str], None]):
        self.shards, self.stream, self.folder, self.warn = shards, stream, folder, warn
        self._first = torch.full((), _NEVER, dtype=torch.int64, device=shards.engine.device)

    def observe(self, loss: Tensor, step: int) -> None:
        """Looks at the losses [B] of a micro-batch of `step`, before its backward pass."""
        now = torch.where(loss.detach().isfinite().all(), _NEVER, step)
        self._first = torch.minimum(self._first, now)

    def should_skip(self, step: int) -> bool:
        """Whether the coming update is to change nothing; never here."""
        return False

    def check(self) -> None:
        """Raises TrainingError on all ranks if a loss so far was not finite; saves that step's batch. Collective."""
        first = int(*ranks.combined(self._first, op=dist.ReduceOp.MIN))
        if first != _NEVER:
            file = ranks.on_rank_zero(lambda: save_batch(self.stream, first, self.folder))
            raise TrainingError(
                f"the loss of step {first + 1} is not finite; its batch is in {file}. Nothing was saved after it. "
                "Lower train.optimizer.lr, set train.clip, or set train.on_nonfinite: skip"
            )
        if self.shards.engine.skipped_steps:
            raise TrainingError(
                "a gradient was not finite though its loss was, and DeepSpeed skipped the step. "
                "Lower train.optimizer.lr, or set train.on_nonfinite: skip to go on after such steps"
            )

    def check_weights(self, step: int) -> None:
        """Raises TrainingError on all ranks if a weight is not finite. Collective."""
        finite = torch.stack([m.detach().isfinite().all() for m in self.shards.masters()]).all()
        if not all(ranks.combined(finite.to(self._first), op=dist.ReduceOp.MIN)):
            raise TrainingError(
                f"the weights after step {step} are not finite; they are not saved. Lower train.optimizer.lr"
            )


class SkipNonFinite(StopOnNonFinite):
    """Steps with a non-finite loss or gradient on any rank change no weight: zero gradients and learning rate.

    Costs one host sync a step. Gradients are blanked as they arise, before DeepSpeed reduces them.
    """

    def __init__(self, shards: Shards, stream: ExampleStream, folder: Path, warn: Callable[[str], None]):
        super().__init__(shards, stream, folder, warn)
        self._bad = torch.zeros((), dtype=torch.bool, device=shards.engine.device)
        self._in_a_row = 0
        self.skipped = 0
        for parameter in shards.parameters.values():
            parameter.register_hook(self._blank)

    def observe(self, loss: Tensor, step: int) -> None:
        self._bad = self._bad | ~loss.detach().isfinite().all()

    def should_skip(self, step: int) -> bool:
        """Whether some rank saw a non-finite value in this step; if so its gradients are zeroed and its batch saved."""
        bad = any(ranks.combined(self._bad.to(self._first), op=dist.ReduceOp.MAX))
        self._bad = torch.zeros_like(self._bad)
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if not bad:
            return False
        self.skipped += 1
        self.shards.zero_gradients()
        file = ranks.on_rank_zero(lambda: save_batch(self.stream, step, self.folder))
        self.warn(f"warning: step {step + 1} is skipped, its loss or gradient is not finite; its batch is in {file}")
        if self._in_a_row >= MOST_SKIPS_IN_A_ROW:
            raise TrainingError(f"{self._in_a_row} steps in a row were not finite; the run cannot recover by skipping")
        return True

    def check(self) -> None:
        """Nothing is left to check: bad steps changed nothing."""

    def _blank(self, gradient: Tensor) -> Tensor:
        self._bad = self._bad | ~gradient.isfinite().all()
        return torch.where(self._bad, torch.zeros_like(gradient), gradient)


def save_batch(stream: ExampleStream, step: int, folder: Path) -> Path:
    """Writes the global batch of a step with its place in the data and its seed, and returns the file.

    Raises TrainingError if it cannot be written.
    """
    batch, _ = stream.batch(step, 0, stream.batch_size)
    first = step * stream.batch_size
    content = {
        "step": step, "seed": stream.seed, "indices": stream.indices(first, first + stream.batch_size),
        "x_0": batch.x_0, "cond": batch.cond,
    }  # fmt: skip
    file = folder / f"nonfinite-step-{step + 1}.pt"
    try:
        torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise TrainingError(
            f"the loss of step {step + 1} is not finite, and {file} cannot be written: {error}"
        ) from error
    return file
