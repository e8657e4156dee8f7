"""What a spec needs on given GPUs: memory of every ZeRO stage, FLOPs, and the sizes that fit."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from di4c.config.build import build_data, build_latent
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.errors import SpecError
from di4c.kernels.backend import CPU_BYTES, gpu_budget
from di4c.losses.checks import number_of_components
from di4c.planning.activations import Trace, inference_trace, training_trace
from di4c.planning.memory import BUCKET, LIVE, Engine, Memory, Passes, memory
from di4c.planning.sizes import Sizes, Skeleton, sizes, skeleton

CONTEXT = 2**30
USABLE = 0.95
"""Of a GPU's memory: what the driver and libraries take, and the share of the rest that an allocator can use."""
LARGEST = 2**16
AFFINE_CHUNKS, GENERIC_CHUNKS = 3, 6
"""Tensors of a chunk's logits that exist at a time, with gradients written by hand and with autograd."""


@dataclass(frozen=True)
class Row:
    """One way of distributing the run; largest_components and largest_micro are 0 where nothing fits."""

    name: str
    engine: Engine
    memory: Memory
    fits: bool
    largest_components: int
    largest_micro: int


class Plan:
    """The needs of a spec on `gpus` devices of `gpu_memory` bytes (None: no limit is known).

    bucket_full=False counts reduction buckets by what is written, as resident memory of a CPU rank does.
    """

    def __init__(self, spec: Spec, *, gpus: int, gpu_memory: int | None = None, bucket_full: bool = True):
        self.spec, self.gpus, self.gpu_memory, self.bucket_full = spec, gpus, gpu_memory, bucket_full
        registry = Registry.default(spec.plugins)
        self.networks: Skeleton = skeleton(spec, registry, build_data(spec, registry))
        self.sizes: Sizes = sizes(spec, self.networks)
        self.micro, self.accumulation = spec.train.micro_batches(gpus)
        objective = spec.objective
        components = objective.get("components", 1)
        if components == "all":
            components = number_of_components(components, build_latent(spec, registry))
        self.components, self.targets = int(components), int(objective.get("targets", 0))
        # Where λ is proposed, x_0 and each sample of the target have M components of their own.
        self.scored = 1 + self.targets * ("consistency" in objective) if objective.get("proposal") else 1
        at_a_time = objective.get("components_at_a_time")
        self.at_a_time = None if at_a_time is None else int(at_a_time)
        budget = CPU_BYTES if gpu_memory is None else gpu_budget(gpu_memory)
        self.chunk_bytes = int(objective.get("chunk_bytes") or budget)
        self.bf16 = spec.train.precision == "bf16"

    def memory(self, engine: Engine, *, micro: int | None = None, components: int | None = None) -> Memory:
        """The Memory of a rank; by the traces of the spec's own sizes, else by their fit."""
        own = micro is None and components is None
        micro, components = micro or self.micro, components or self.components
        return memory(self.sizes, self._passes(micro, components, exact=own), engine)

    def engine(self, stage: int, *, offload: bool = False) -> Engine:
        """How the spec's run is distributed at a stage; bucket sizes are those of its `deepspeed:` section."""
        zero = self.spec.deepspeed.get("zero_optimization", {})
        return Engine(
            stage, self.gpus, self.bf16, self.spec.train.ema is not None, self.accumulation, offload, offload and stage == 3,
            bucket=int(zero.get("reduce_bucket_size", BUCKET)), live=int(zero.get("stage3_max_live_parameters", LIVE)),
            bucket_full=self.bucket_full, teacher=self.spec.train.teacher_placement,
        )  # fmt: skip

    @cached_property
    def rows(self) -> list[Row]:
        """Stages 0 to 3, then 2 and 3 offloaded."""
        ways = [(f"stage {s}", self.engine(s)) for s in range(4)]
        ways += [(f"stage {s}, offloaded", self.engine(s, offload=True)) for s in (2, 3)]
        return [self._row(name, engine) for name, engine in ways]

    @property
    def recommended(self) -> Row | None:
        """The first row that fits: stages cost communication as they rise, offloading costs more. None if none fits."""
        return next((row for row in self.rows if row.fits), None)

    @cached_property
    def step_flops(self) -> float:
        """Of one optimizer step on one GPU: student, target, teacher, and output heads of all positions (half of them on average are
        masked, which is what counts for masked diffusion)."""
        trace = self._trace(self.micro, self.components).flops
        one = inference_trace(self.networks, self.micro, 1).flops
        target = inference_trace(self.networks, self.micro, self.targets).flops if self.targets else 0
        substeps = int((self.spec.objective.get("teacher_step") or {}).get("substeps", 1)) if self.targets else 0
        rows = self.micro * self.networks.shape.num_positions
        read = 4 * self.components * self.scored + self.targets + substeps
        head = 2 * rows * self.networks.backbone.width * self.networks.num_states * read
        return float(self.accumulation * (trace + target + one * (substeps + 1) + head))

    def _row(self, name: str, engine: Engine) -> Row:
        needed = self.memory(engine)
        if self.gpu_memory is None:
            return Row(name, engine, needed, True, 0, 0)
        available = USABLE * self.gpu_memory - CONTEXT
        most = (
            _largest(lambda k: self.memory(engine, components=k).peak <= available)
            if self.spec.task == "distill"
            else 0
        )
        micro = _largest(lambda k: self.memory(replace(engine, accumulation=1), micro=k).peak <= available)
        return Row(name, engine, needed, needed.peak <= available, most, micro)

    def _passes(self, micro: int, components: int, *, exact: bool) -> Passes:
        trace, target = self._exact if exact else (self._fit(micro, components), self._fitted_target(micro))
        chunk = min(
            self.chunk_bytes,
            4 * micro * self.networks.shape.num_positions * components * self.scored * self.networks.num_states,
        )
        affine = getattr(self.networks.backbone.readout, "affine", False)
        loss = (AFFINE_CHUNKS if affine else GENERIC_CHUNKS) * chunk + trace.loss
        return Passes(trace, target, loss)

    @cached_property
    def _exact(self) -> tuple[Trace, int]:
        trace = self._trace(self.micro, self.components)
        target = inference_trace(self.networks, self.micro, max(1, self.targets), at_a_time=self.at_a_time).peak
        return trace, target if self.networks.student else 0

    def _trace(self, micro: int, components: int) -> Trace:
        return training_trace(self.networks, micro, components * self.scored, bf16=self.bf16, at_a_time=self.at_a_time)

    @cached_property
    def _three(self) -> tuple[int, tuple[Trace, Trace, Trace]]:
        """(m, traces at (B, M) = (1, m), (1, 2m), (2, 2m)), through which bytes are taken to be α + β B + γ B M."""
        first = 1 if self.at_a_time is None or self.components <= self.at_a_time else 2 * self.at_a_time
        second = 2 * first if self.networks.student is not None else first
        return first, (self._trace(1, first), self._trace(1, second), self._trace(2, second))

    def _fit(self, micro: int, components: int) -> Trace:
        m, traces = self._three
        first, second, third = (vars(trace) for trace in traces)
        values = {}
        for key, one in first.items():
            gamma = (second[key] - one) / m
            beta = third[key] - second[key] - (2 * m * gamma if self.networks.student is not None else 0)
            values[key] = max(0, round(one + beta * (micro - 1) + gamma * (micro * components - m)))
        return Trace(**values)

    def _fitted_target(self, micro: int) -> int:
        return self._exact[1] * micro // self.micro


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest k in 1 … 65536 that fits, 0 if none does; `fits` is decreasing in k."""
    low, high = 0, LARGEST + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def parsed_bytes(text: str) -> int:
    """Bytes of "80GB", "80 GiB", "500MB" or a number. Raises SpecError."""
    units = {"": 1, "b": 1}
    for power, letter in enumerate("mgt", 2):
        units |= {f"{letter}b": 1000**power, f"{letter}ib": 1024**power}
    number = text.strip().lower()
    unit = number.lstrip("0123456789.").strip()
    try:
        return int(float(number[: len(number) - len(unit)].strip() if unit else number) * units[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise SpecError(f"--gpu-memory: expected a size such as 80GB or 40GiB, found {text!r}") from error
