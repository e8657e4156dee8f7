"""The training loop: DeepSpeed's engine around an objective.

    stream → slice of this rank → micro-batches → objective → mean loss → engine → update → EMA
    every log_every steps: means → metrics.csv · every checkpoint_every: checkpoint, export
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import nn

from di4c.contracts.dataset import Split
from di4c.contracts.objective import Objective
from di4c.engine import checkpoint as checkpoints
from di4c.engine import ranks
from di4c.engine.deepspeed_config import deepspeed_config
from di4c.engine.ema import MovingAverage
from di4c.engine.export import export
from di4c.engine.metrics import MetricsFile, Progress, RunningMeans
from di4c.engine.nonfinite import SkipNonFinite, StopOnNonFinite
from di4c.engine.optimizer import build_optimizer, parameter_groups, set_learning_rate
from di4c.engine.options import TrainOptions
from di4c.engine.run_folder import RunFolder, code_commit
from di4c.engine.schedule import lr_factor
from di4c.engine.shards import shards_of
from di4c.engine.stream import ExampleStream
from di4c.errors import DataError, TrainingError

_CHEAP_EXPORT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Result:
    """How a run ended: `step` updates made, `finished` all of them, `already` before this call began."""

    step: int
    finished: bool
    already: bool = False


def train(
    objective: Objective,
    split: Split,
    *,
    folder: Path,
    options: TrainOptions,
    deepspeed_section: dict[str, Any] | None = None,
    seed: int = 0,
    fingerprint: str = "",
    spec: dict[str, Any] | None = None,
    exported_spec: dict[str, Any] | None = None,
    resume: bool = False,
) -> Result:
    """Trains `objective` on `split` and leaves checkpoints, metrics and an export in `folder`. Collective.

    spec: the resolved spec, recorded with the run; exported_spec: what rebuilds the model (default: spec). Raises TrainingError, CheckpointError, DataError or SpecError, the
    same on all ranks.
    """
    ranks.start()
    folder = Path(folder)
    holder: list[RunFolder] = []
    ranks.on_rank_zero(lambda: holder.append(RunFolder(folder, resume=resume)))
    try:
        trainer = Trainer(objective, split, folder, options, deepspeed_section or {}, seed, fingerprint)
        trainer.spec = spec or {}
        trainer.exported_spec = trainer.spec if exported_spec is None else exported_spec
        trainer.record = holder[0] if holder else None
        return trainer.run(resume)
    finally:
        for held in holder:
            held.close()


class Trainer:
    """One run on this rank; see `train`."""

    def __init__(
        self, objective: Objective, split: Split, folder: Path, options: TrainOptions, section: dict[str, Any],
        seed: int, fingerprint: str,
    ):  # fmt: skip
        self.folder, self.options, self.seed, self.fingerprint = folder, options, seed, fingerprint
        self.spec: dict[str, Any] = {}
        self.exported_spec: dict[str, Any] = {}
        self.record: RunFolder | None = None
        self.device = ranks.start()
        self.stream = ExampleStream(split, seed, batch_size=options.batch_size)
        self.engine = _initialize(objective, options, section, self.device)
        self.shards = shards_of(self.engine)
        self.average = MovingAverage(self.shards, options.ema) if options.ema else None
        self.means = RunningMeans(self.device)
        self.file = MetricsFile(folder / "metrics.csv")
        self.step = 0
        self.micro, self.accumulation = options.micro_batches(ranks.world_size())
        self.first = ranks.rank() * self.micro * self.accumulation
        self.aliases = _aliases(objective)
        if options.on_nonfinite == "skip":
            self.guard: StopOnNonFinite = SkipNonFinite(self.shards, self.stream, folder, self._say)
        else:
            self.guard = StopOnNonFinite(self.shards)

    def run(self, resume: bool) -> Result:
        """Trains to the last step, or until SIGTERM."""
        restored = self._restore() if resume else None
        if restored is not None and self.step >= self.options.steps:
            ranks.on_rank_zero(lambda: self._export(restored))
            self._say(f"{self.folder}: the run is complete ({self.step} steps); nothing to do")
            return Result(self.step, finished=True, already=True)
        ranks.on_rank_zero(self._begin)
        self.progress = Progress(self.options.steps, self.step, shown=ranks.rank() == 0)
        stop = ranks.StopSignal()
        try:
            finished = self._train(stop)
        finally:
            stop.close()
            self.progress.close()
        if self.record is not None:
            self.record.record_end(step=self.step, finished=finished)
        return Result(self.step, finished)

    def _train(self, stop: ranks.StopSignal) -> bool:
        """All steps; False if a signal ended them."""
        options, self._since = self.options, (time.monotonic(), self.step)
        while self.step < options.steps:
            self._update()
            last = self.step == options.steps
            if self.step % options.log_every == 0 or last:
                self._report()
            if options.diagnostics_every and (self.step % options.diagnostics_every == 0 or last):
                self._diagnose()
            stopped = stop.poll() and not last
            due = options.checkpoint_every and self.step % options.checkpoint_every == 0
            if due or last or stopped:
                self._checkpoint(last)
            if stopped:
                self._say(f"stopped by SIGTERM after step {self.step}; continue with --resume")
                return False
            self.progress.advance(self.step)
        return True

    def _update(self) -> None:
        """One optimizer step on the global batch."""
        collected: list[dict[str, torch.Tensor]] = []
        for number in range(self.accumulation):
            start = self.first + number * self.micro
            batch, draws = self.stream.batch(self.step, start, start + self.micro, self.device)
            # Dropout is the one draw made inside networks; seeding it by the examples lets a resumed run repeat it.
            torch.manual_seed((self.seed * 1_000_003 + draws.first) % 2**63)
            terms = self.engine(batch, draws, self.step)
            self.guard.observe(terms["loss"], self.step)
            self.engine.backward(terms["loss"].mean())
            collected.append({k: v.detach() for k, v in terms.items()})
            if number < self.accumulation - 1:
                self.engine.step()
        skip = self.guard.should_skip(self.step)
        factor = lr_factor(self.step, self.options.steps, self.options.schedule)
        self.lr = 0.0 if skip else self.options.optimizer.lr * factor
        set_learning_rate(self.engine.optimizer, self.lr)
        self.engine.step()
        self.step += 1
        if skip:
            return
        if self.average is not None:
            self.average.update(self.step)
        for terms in collected:
            self.means.add(terms, self.micro * ranks.world_size())

    def _report(self) -> None:
        self.guard.check(self.stream, self.folder)
        values = self.means.read() | {"lr": self.lr}
        norm = self.engine.get_global_grad_norm()
        if norm is not None:
            values["grad_norm"] = float(norm)
        now = time.monotonic()
        (then, step), self._since = self._since, (now, self.step)
        rate = (self.step - step) * self.options.batch_size / max(now - then, 1e-9)
        self._write(values, {"examples_per_second": round(rate, 2)})
        self.progress.report(self.step, values, rate)

    def _diagnose(self) -> None:
        """Logs the objective's own measurements on the next step's examples."""
        start = self.first
        batch, draws = self.stream.batch(self.step, start, start + self.micro, self.device)
        module: nn.Module = self.engine.module
        module.eval()
        try:
            with torch.no_grad():
                found = module.diagnostics(batch, draws.child("diagnostics"))
        finally:
            module.train()
        values = _mean_over_ranks(found, self.device)
        if not values:
            return
        self._write(values, {})
        self._say("  ".join([f"step {self.step} diagnostics"] + [f"{k} {v:.4g}" for k, v in values.items()]))
        if values.get("mixture_collapsed", 0) > 0:
            self._say(
                f"warning: step {self.step}: the mixture has collapsed to a product, λ carries no information. "
                "Raise the learning rate of the student head or its initial scale"
            )

    def _checkpoint(self, last: bool) -> None:
        self.guard.check(self.stream, self.folder)
        self.guard.check_weights(self.step)
        self.means.merge()
        state = self._state()
        path = checkpoints.save(
            self.folder / "checkpoints", self.shards, self.average, state, keep=self.options.keep
        )
        saved = checkpoints.Checkpoint(path, state)
        cheap = sum(torch.Size(s).numel() for s in self.shards.shapes.values()) * 4 <= _CHEAP_EXPORT_BYTES
        if last or cheap:
            ranks.on_rank_zero(lambda: self._export(saved))

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step, "optimizer_steps": self.step, "seed": self.seed, "fingerprint": self.fingerprint,
            "world_size": ranks.world_size(), "zero_stage": int(self.engine.zero_optimization_stage()),
            "precision": self.options.precision, "batch_size": self.options.batch_size, "aliases": self.aliases,
            "window": self.means.state(),
        }  # fmt: skip

    def _restore(self) -> checkpoints.Checkpoint | None:
        """Continues from the newest good checkpoint, if there is one."""
        folder = self.folder / "checkpoints"
        found = ranks.on_rank_zero(lambda: checkpoints.newest(folder, self._warn) if folder.exists() else None)
        if found is None:
            self._say(f"{self.folder}: no checkpoint yet; starting from the beginning")
            return None
        saved = found.state["fingerprint"]
        if saved != self.fingerprint:
            raise DataError(
                f"the data have changed since {found.path} was written (fingerprint {saved!r}, now {self.fingerprint!r}); "
                "restore them, or train in a new folder"
            )
        checkpoints.restore(found, self.shards, self.average)
        self.means.load(found.state["window"])
        self.step = self.engine.global_steps = found.step
        self.engine.global_samples = found.step * self.options.batch_size
        self._say(f"resumed from {found.path} (step {self.step})")
        return found

    def _begin(self) -> None:
        """Opens the records of this session. Rank 0."""
        facts = {"seed": self.seed, "world_size": ranks.world_size(), "from_step": self.step}
        facts["zero_stage"] = int(self.engine.zero_optimization_stage())
        assert self.record is not None
        changed = self.record.record_start(self.spec, facts)
        if changed:
            self._say(f"note: the spec differs from the one that this run began with: {', '.join(changed)}")
        checkpoints.clear_unfinished(self.folder / "checkpoints")
        self.file.truncate(self.step)

    def _export(self, saved: checkpoints.Checkpoint) -> None:
        export(saved, self.folder / "export", self.exported_spec, code_commit())

    def _write(self, values: dict[str, float], more: dict[str, float]) -> None:
        if ranks.rank() != 0:
            return
        try:
            self.file.append(self.step, values | more)
        except OSError as error:
            raise TrainingError(ranks.describe_os_error(error)) from error
        if self.engine.monitor.enabled:
            self.engine.monitor.write_events([(f"train/{k}", v, self.step) for k, v in values.items()])

    def _say(self, message: str) -> None:
        if hasattr(self, "progress"):
            self.progress.say(message)
        elif ranks.rank() == 0:
            print(message, flush=True)

    def _warn(self, message: str) -> None:
        print(f"warning: {message}", file=sys.stderr, flush=True)


def _initialize(objective: Objective, options: TrainOptions, section: dict[str, Any], device: torch.device):
    """The DeepSpeed engine with AdamW."""
    config = deepspeed_config(section, options, ranks.world_size())
    groups = parameter_groups(objective, options.optimizer)
    objective.to(device).train()
    for parameter in objective.parameters():
        parameter.data = parameter.data.contiguous()
    optimizer = build_optimizer(groups, options.optimizer)
    engine, *_ = deepspeed.initialize(model=objective, optimizer=optimizer, config=config)
    if hasattr(engine.optimizer, "fp32_groups"):
        # This wrapper of stage 0 in bfloat16 has taken an empty step, which would shift the bias correction.
        engine.optimizer.optimizer.state.clear()
    return engine


def _aliases(module: nn.Module) -> dict[str, str]:
    """{further name of a tied parameter: its first name}."""
    first = {id(p): n for n, p in module.named_parameters()}
    every = module.named_parameters(remove_duplicate=False)
    return {n: first[id(p)] for n, p in every if n != first[id(p)]}


def _mean_over_ranks(values: dict[str, float], device: torch.device) -> dict[str, float]:
    if not values or ranks.world_size() == 1:
        return {k: float(v) for k, v in values.items()}
    tensor = torch.tensor([float(v) for v in values.values()], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor)
    return dict(zip(values, (tensor / ranks.world_size()).tolist(), strict=True))
