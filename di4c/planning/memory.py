"""Bytes a rank needs, from numbers of parameters and traces: what DeepSpeed's stages and this project's engine hold.

With n trained parameters, R ranks, w bytes a working number (4, or 2 in bfloat16), every rank holds

              weights   masters       optimizer   average   gradients          at the update, besides
    stage 0   w n       4n (bf16)     8n          4n        w n                the gradients once more, flat
    stage 1   w n       4n/R          8n/R        4n/R      w n                4n/R flat gradients, 8n/R of AdamW's
    stage 2   w n       4n/R          8n/R        4n/R      bucket, then w n/R 4n/R flat gradients, 8n/R of AdamW's
    stage 3   w n/R     4n/R (bf16)   8n/R        4n/R      bucket and w n/R   4n/R flat gradients, 8n/R of AdamW's

stage 3 also keeps up to `stage3_max_live_parameters` gathered. Offloading moves masters, optimizer, average, their gradients and
AdamW's temporaries to the host, and with offload_param the weights. The teacher lies whole on every rank, or but for its output head in
slices, there or on the host; up to `stage3_max_live_parameters` of it are gathered while it is called.
"""

from dataclasses import dataclass

from di4c.planning.activations import Trace
from di4c.planning.sizes import Sizes

BUCKET = 500_000_000
LIVE = 1_000_000_000
"""DeepSpeed's defaults: numbers in a bucket that is reduced at once, and gathered at stage 3."""
HOST_RUNTIME = 100 * 10**6
"""What threads, communication and the heap's slack add to a process on the host; measured on one that trains."""


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
    teacher: str = "replicated"


@dataclass(frozen=True)
class Passes:
    """The largest bytes while something is computed: the training pass, the target's beside it, the chunks of the loss."""

    trace: Trace
    target: int = 0
    loss_chunks: int = 0


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. `activations` and `loss_chunks` are alive while the loss and its gradients are computed, `update` while
    the weights are updated, all others always. host: what is offloaded."""

    weights: int
    gathered: int
    gradients: int
    optimizer: int
    average: int
    teacher: int
    activations: int
    loss_chunks: int
    update: int
    host: int
    runtime: int

    @property
    def peak(self) -> int:
        """The largest at any time, without the host's."""
        always = (
            self.weights + self.gathered + self.gradients + self.optimizer + self.average + self.teacher + self.runtime
        )
        return always + max(self.activations + self.loss_chunks, self.update)


def memory(sizes: Sizes, passes: Passes, engine: Engine) -> Memory:
    """The Memory of one rank."""
    n, w = sizes.trained, 2 if engine.bf16 else 4
    part = -(-n // engine.ranks) if engine.stage else n
    separate = engine.bf16 or engine.stage in (1, 2) or engine.offload_optimizer
    optimizer = 8 * part + (4 * part if separate else 0)
    average = 4 * part if engine.average else 0
    frozen = sizes.frozen_bytes // engine.ranks if engine.stage == 3 else sizes.frozen_bytes
    weights = (w * part if engine.stage == 3 else w * n) + frozen
    gradients, computing, update = _gradients(sizes, passes.trace, engine, w, part)
    teacher, host, called = _teacher(sizes, engine)
    if engine.offload_optimizer:
        copies = w * part if engine.stage == 2 else 0  # updated weights on their way back
        host += optimizer + average + copies + (4 + 8) * part
        optimizer = average = update = 0
    if engine.offload_param:
        host += weights
        weights = 0
    return Memory(
        weights=weights,
        gathered=_gathered(sizes, engine, w),
        gradients=gradients,
        optimizer=optimizer,
        average=average,
        teacher=teacher,
        activations=max(computing, passes.trace.saved + passes.target, called),
        loss_chunks=passes.loss_chunks,
        update=update,
        host=host,
        runtime=0 if engine.bucket_full else HOST_RUNTIME,
    )


def _teacher(sizes: Sizes, engine: Engine) -> tuple[int, int, int]:
    """(bytes always there, on the host, gathered while the teacher is called)."""
    if engine.teacher == "replicated":
        return sizes.teacher_bytes, 0, 0
    cut = sizes.teacher_bytes - sizes.teacher_output_head_bytes
    part, called = cut // engine.ranks, min(cut, 4 * engine.live)
    if engine.teacher == "offloaded":
        return sizes.teacher_output_head_bytes, part, called
    return sizes.teacher_output_head_bytes + part, 0, called if engine.ranks > 1 else 0


def _gathered(sizes: Sizes, engine: Engine, w: int) -> int:
    """Parameters that stage 3 has gathered at a time."""
    return w * min(sizes.trained + sizes.frozen, engine.live) if engine.stage == 3 and engine.ranks > 1 else 0


def _gradients(sizes: Sizes, trace: Trace, engine: Engine, w: int, part: int) -> tuple[int, int, int]:
    """(gradients always there, largest bytes of the backward pass, largest bytes of the update)."""
    n = sizes.trained
    bucket = w * (engine.bucket if engine.bucket_full and engine.ranks > 1 else min(n, engine.bucket))
    if engine.stage == 3:
        return w * part + bucket, trace.peak_without_gradients, (4 + 8) * part
    if engine.stage == 2:
        kept = w * part if engine.accumulation > 1 else 0
        return kept, trace.peak_without_gradients + bucket, w * part - kept + (4 + 8) * part
    kept = w * n if engine.accumulation > 1 else 0
    computing = trace.peak_without_gradients if kept else trace.peak
    if engine.stage == 1:
        return kept, computing, max(w * n, bucket) - kept + (4 + 8) * part
    adam = 8 * (n if engine.bf16 else sizes.largest)
    flat = w * min(n, engine.bucket)
    return kept, computing, w * n - kept + max(flat, adam + (4 * n if engine.bf16 else 0))
