"""Bytes a rank needs, from numbers of parameters and traces: what DeepSpeed's stages and this project's engine hold.

With n trained parameters, R ranks, w bytes a working number (4, or 2 in bfloat16), every rank holds

              weights   masters       optimizer   average   gradients       at the update, besides
    stage 0   w n       4n (bf16)     8n          4n        w n             the gradients once more, flat
    stage 1   w n       4n/R          8n/R        4n/R      w n             the bucket, 4n/R gradients, 8n/R of AdamW's
    stage 2   w n       4n/R          8n/R        4n/R      bucket + w n/R  4n/R gradients, 8n/R of AdamW's
    stage 3   w n/R     4n/R (bf16)   8n/R        4n/R      bucket + w n/R  4n/R gradients, 8n/R of AdamW's

stage 3 also gathers up to `stage3_max_live_parameters` while it computes. Offloading moves masters, optimizer, average (and with
offload_param the weights) to the host.
"""

from dataclasses import dataclass, field, fields

from di4c.planning.activations import Trace
from di4c.planning.sizes import Sizes

BUCKET = 500_000_000
LIVE = 1_000_000_000
"""DeepSpeed's defaults: numbers in a bucket that is reduced at once, and gathered at stage 3."""


@dataclass(frozen=True)
class Engine:
    """How a run is distributed. bucket_full: whether a bucket takes its whole size (an accelerator's memory does; the host's
    pages count once they are written)."""

    stage: int
    ranks: int
    bf16: bool
    average: bool
    accumulation: int = 1
    offload_optimizer: bool = False
    offload_param: bool = False
    bucket: int = BUCKET
    live: int = LIVE
    bucket_full: bool = True


@dataclass(frozen=True)
class Passes:
    """The largest bytes while something is computed: training pass, target and teacher passes beside it, chunks of the loss."""

    trace: Trace
    target: int = 0
    loss_chunks: int = 0


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank; `activations` … `update` are alive at different times, all others always. host: offloaded."""

    weights: int = 0
    gathered: int = 0
    gradients: int = 0
    optimizer: int = 0
    average: int = 0
    teacher: int = 0
    activations: int = 0
    loss_chunks: int = 0
    update: int = 0
    host: int = field(default=0)

    @property
    def computing(self) -> int:
        """While the loss and its gradients are computed."""
        return self._always + self.gathered + self.activations + self.loss_chunks

    @property
    def updating(self) -> int:
        """While the weights are updated."""
        return self._always + self.update

    @property
    def peak(self) -> int:
        """The larger of the two, on the accelerator."""
        return max(self.computing, self.updating)

    @property
    def _always(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.teacher

    def items(self) -> dict[str, int]:
        """The entries by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def memory(sizes: Sizes, passes: Passes, engine: Engine) -> Memory:
    """The Memory of one rank."""
    n, w = sizes.trained, 2 if engine.bf16 else 4
    part = -(-n // engine.ranks) if engine.stage else n
    bucket = w * (engine.bucket if engine.bucket_full and engine.ranks > 1 else min(n, engine.bucket))
    separate = engine.bf16 or engine.stage in (1, 2) or engine.offload_optimizer
    optimizer = 8 * part + (4 * part if separate else 0)
    average = 4 * part if engine.average else 0
    frozen = sizes.frozen_bytes // engine.ranks if engine.stage == 3 else sizes.frozen_bytes
    weights = (w * part if engine.stage == 3 else w * n) + frozen
    host = 0
    if engine.offload_optimizer:
        host += optimizer + average
        optimizer = average = 0
    if engine.offload_param:
        host += weights
        weights = 0
    gradients, computing, update = _gradients(sizes, passes.trace, engine, w, part, bucket)
    return Memory(
        weights=weights,
        gathered=_gathered(sizes, engine, w),
        gradients=gradients,
        optimizer=optimizer,
        average=average,
        teacher=sizes.teacher_bytes,
        activations=max(computing, passes.trace.saved + passes.target),
        loss_chunks=passes.loss_chunks,
        update=update,
        host=host,
    )


def _gathered(sizes: Sizes, engine: Engine, w: int) -> int:
    """Parameters that stage 3 has gathered at a time."""
    return w * min(sizes.trained + sizes.frozen, engine.live) if engine.stage == 3 and engine.ranks > 1 else 0


def _gradients(sizes: Sizes, trace: Trace, engine: Engine, w: int, part: int, bucket: int) -> tuple[int, int, int]:
    """(gradients always there, largest bytes of the backward pass, largest bytes of the update)."""
    n = sizes.trained
    adam = 8 * (sizes.largest if engine.stage == 0 and not engine.bf16 else part)
    if engine.stage <= 1:
        kept = w * n if engine.accumulation > 1 else 0
        computing = kept + (trace.peak_without_gradients if kept else trace.peak)
        if engine.stage == 0:
            flat = w * min(n, engine.bucket) + (4 * n if engine.bf16 else 0)
            return 0, computing, w * n + max(flat, adam)
        return 0, computing, bucket + 8 * part + adam
    always = w * part if engine.stage == 3 or engine.accumulation > 1 else 0
    return always, trace.peak_without_gradients + bucket, max(bucket, 4 * part + adam)
