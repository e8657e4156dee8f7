"""How a run is trained, as plain values; imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Literal

from di4c.errors import SpecError


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW. `lr_multipliers` maps part of a parameter's name to a factor on the learning rate, e.g. {"head.": 5.0}."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    eps: float = 1e-8
    lr_multipliers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScheduleOptions:
    """Linear warm-up over `warmup` steps, then `decay` to `final` (none: 0) times the peak at the last step."""

    warmup: int = 0
    decay: Literal["constant", "cosine", "linear"] = "constant"
    final: float | None = None


@dataclass(frozen=True)
class TrainOptions:
    """steps: optimizer steps. batch_size: examples a step over all ranks. micro_batch_size: examples a rank's forward pass.

    ema: decay of the averaged weights. keep: checkpoints kept. clip: largest gradient norm. 0 or None: none of them.
    checkpoint_every, diagnostics_every: 0 for never, though the last step is always kept.
    on_nonfinite: a loss that is NaN or infinite stops the run, or its step is skipped (costs one host sync a step).
    teacher_placement: see engine/placement.py. compile: torch.compile the networks (engine/compiling.py).
    """

    steps: int
    batch_size: int
    micro_batch_size: int | None = None
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    clip: float | None = None
    ema: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: int = 1000
    keep: int = 2
    log_every: int = 50
    diagnostics_every: int = 0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    teacher_placement: Literal["replicated", "sharded", "offloaded"] = "replicated"
    compile: bool = False

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
