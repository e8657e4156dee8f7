"""How a run is trained, as plain values; imports nothing heavy. What shapes the result has no default: a spec states it."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from di4c.errors import SpecError


def _require(condition: bool, key: str, found: object, allowed: str) -> None:
    if not condition:
        raise SpecError(f"{key}: expected {allowed}, found {found!r}.")


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW. lr_multipliers: {part of a parameter's name: factor on its learning rate}, e.g. {"head.": 5.0}; betas_of: {part of a
    parameter's name: betas of its own}.
    """

    lr: float
    betas: tuple[float, float]
    weight_decay: float
    eps: float = 1e-8
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    betas_of: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self):
        _require(0 < self.lr < math.inf, "train.optimizer.lr", self.lr, "a finite number > 0")
        _require(all(0 <= b < 1 for b in self.betas), "train.optimizer.betas", self.betas, "two numbers in [0, 1)")
        decay = self.weight_decay
        _require(0 <= decay < math.inf, "train.optimizer.weight_decay", decay, "a finite number ≥ 0")
        _require(0 < self.eps < math.inf, "train.optimizer.eps", self.eps, "a finite number > 0")
        for name, factor in self.lr_multipliers.items():
            _require(0 <= factor < math.inf, f"train.optimizer.lr_multipliers.{name}", factor, "a finite number ≥ 0")
        for name, betas in self.betas_of.items():
            _require(all(0 <= b < 1 for b in betas), f"train.optimizer.betas_of.{name}", betas, "two numbers in [0, 1)")


@dataclass(frozen=True)
class ScheduleOptions:
    """The learning rate: `warmup` steps up from 0, then constant, or down to `final` times lr at the last step.

    A training shorter than its warm-up, a trial of a long one, ends within it.
    """

    warmup: int
    decay: Literal["constant", "cosine", "linear"]
    final: float | None = None

    def __post_init__(self):
        _require(self.warmup >= 0, "train.schedule.warmup", self.warmup, "a number of steps ≥ 0")
        if self.decay == "constant":
            _require(self.final is None, "train.schedule.final", self.final, "no value, since decay is constant")
        else:
            good = self.final is not None and 0 <= self.final <= 1
            _require(good, "train.schedule.final", self.final, "a fraction of lr in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """steps: optimizer steps. batch_size: examples a step, over all ranks. micro_batch_size: examples a rank takes at once
    (null: its whole share). clip: largest gradient norm, or null. ema: decay of the averaged weights, or null.
    checkpoint_every, log_every, diagnostics_every: in steps (0: never; the last step is always kept). keep: checkpoints
    that stay on disk. on_nonfinite: what a loss that is not finite does, stop the run or skip the step (costs one host sync a
    step). teacher_placement: whole on every rank, or sharded over the ranks, in the host's memory if offloaded
    (engine/placement.py). compile: torch.compile the networks (engine/compiling.py). graphs: replay passes without gradient whose
    shapes recur as CUDA graphs (engine/graphs.py), but not with compile or deterministic, nor at ZeRO stage 3. deterministic: a run
    gives the same bits again on the same machine, killed and resumed or not, on CUDA too, where it is slower (torch's deterministic
    algorithms, cuDNN's, and CUBLAS_WORKSPACE_CONFIG=:4096:8 if it is not set); on a CPU runs do so anyway. run: the run's folder.

    Raises SpecError for values out of range.
    """

    steps: int
    batch_size: int
    optimizer: OptimizerOptions
    schedule: ScheduleOptions
    clip: float | None
    ema: float | None
    precision: Literal["fp32", "bf16"]
    micro_batch_size: int | None = None
    checkpoint_every: int = 1000
    keep: int = 2
    log_every: int = 10
    diagnostics_every: int = 100
    on_nonfinite: Literal["stop", "skip"] = "stop"
    teacher_placement: Literal["replicated", "sharded", "offloaded"] = "replicated"
    compile: bool = False
    graphs: bool = True
    deterministic: bool = False
    run: Path

    def __post_init__(self):
        for key in ("steps", "batch_size", "keep", "log_every"):
            _require(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "at least 1")
        for key in ("checkpoint_every", "diagnostics_every"):
            _require(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "a number of steps ≥ 0")
        micro = self.micro_batch_size
        _require(micro is None or micro >= 1, "train.micro_batch_size", micro, "at least 1, or null")
        _require(self.clip is None or 0 < self.clip < math.inf, "train.clip", self.clip, "a finite number > 0, or null")
        _require(self.ema is None or 0 <= self.ema < 1, "train.ema", self.ema, "a decay in [0, 1), or null")

    @property
    def replays(self) -> bool:
        """Whether CUDA graphs may stand for passes. Not in a deterministic run: a resumed one begins without, and the bits must be equal."""
        return self.graphs and not self.compile and not self.deterministic

    def micro_batches(self, world_size: int) -> tuple[int, int]:
        """(micro-batch size, micro-batches a step) of one of `world_size` ranks.

        Raises SpecError where batch_size does not divide into equal slices and micro-batches.
        """
        if self.batch_size % world_size:
            raise SpecError(
                f"train.batch_size: {self.batch_size} examples do not divide over {world_size} ranks; "
                f"choose a multiple of {world_size}"
            )
        share = self.batch_size // world_size
        micro = min(self.micro_batch_size or share, share)
        if share % micro:
            raise SpecError(
                f"train.micro_batch_size: {micro} does not divide a rank's {share} examples "
                f"(train.batch_size {self.batch_size} over {world_size} ranks)"
            )
        return micro, share // micro
