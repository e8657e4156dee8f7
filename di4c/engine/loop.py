"""The training loop: DeepSpeed's engine around an objective.

stream → slice of this rank → micro-batches, read ahead → objective → mean loss → engine → update → EMA
every log_every steps: means → metrics.csv · every checkpoint_every: checkpoint, export
"""

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import torch

from di4c import ranks
from di4c.contracts.dataset import Batch, DataSource, Split
from di4c.contracts.modes import evaluating
from di4c.contracts.objective import Objective
from di4c.draws import Draws
from di4c.engine import checkpoint as checkpoints
from di4c.engine import process_group
from di4c.engine.allocator import give_back_unused
from di4c.engine.card import last_metrics
from di4c.engine.determinism import deterministic
from di4c.engine.dropout import insert_example_dropout
from di4c.engine.ema import MovingAverage
from di4c.engine.export import export
from di4c.engine.initialize import initialize, tied_names
from di4c.engine.metrics import RunningMeans
from di4c.engine.nonfinite import SkipNonFinite, StopOnNonFinite
from di4c.engine.optimizer import set_learning_rate
from di4c.engine.options import TrainOptions
from di4c.engine.placement import place
from di4c.engine.read_ahead import ReadAhead
from di4c.engine.report import Reporter
from di4c.engine.run_folder import RunFolder, code_commit
from di4c.engine.schedule import lr_factor
from di4c.engine.shards import shards_of
from di4c.engine.stream import ExampleStream
from di4c.errors import DataError

STEPS_BETWEEN_TRIMS = 50
_CHEAP_EXPORT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Result:
    """How a run ended: `step` updates made, `finished` all of them, `already` before this call began."""

    step: int
    finished: bool
    already: bool = False


@dataclass(frozen=True)
class Run:
    """What is recorded of how a run came about.

    fingerprint: of the data. spec: the resolved spec. exported_spec: what rebuilds the exported model. data: leave with it what
    samples are told by.
    """

    seed: int = 0
    fingerprint: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    exported_spec: dict[str, Any] = field(default_factory=dict)
    data: DataSource | None = None


def train(
    objective: Objective,
    split: Split,
    *,
    run: Run,
    options: TrainOptions,
    deepspeed: dict[str, Any],
    resume: bool = False,
) -> Result:
    """Trains `objective` on `split` and leaves checkpoints, metrics and an export in `options.run`. Collective.

    deepspeed: DeepSpeed's own configuration, without what `options` say. Raises TrainingError, CheckpointError, DataError
    or SpecError, the same on all ranks.
    """
    held: list[RunFolder] = []
    with deterministic(options.deterministic), ExitStack() as stack:
        process_group.start()
        stop = stack.enter_context(closing(process_group.StopSignal()))
        ranks.on_rank_zero(lambda: held.append(stack.enter_context(closing(RunFolder(options.run, resume=resume)))))
        trainer = Trainer(objective, split, run, options, deepspeed)
        trainer.record = held[0] if held else None
        return trainer.train(stop, resume=resume)


class Trainer:
    """One run on this rank; see `train`."""

    def __init__(self, objective: Objective, split: Split, run: Run, options: TrainOptions, deepspeed: dict[str, Any]):
        self.run, self.options = run, options
        self.record: RunFolder | None = None
        self.step, self.lr = 0, 0.0
        self.rested = 0
        """Steps so far in which the model rested."""
        self.device = process_group.start()
        self.micro, self.accumulation = options.micro_batches(ranks.world_size())
        self.first = ranks.rank() * self.micro * self.accumulation
        self.aliases = tied_names(objective)
        self.beside = [n for n, p in objective.named_parameters() if p.requires_grad and objective.apart(n)]
        self.stream = ExampleStream(split, run.seed, batch_size=options.batch_size)
        self.examples = insert_example_dropout(objective)
        preparation = Draws(run.seed, path=("prepare",), device=self.device)
        objective.to(self.device).prepare(preparation, rank=ranks.rank(), ranks=ranks.world_size())
        if objective.teacher is not None:
            place(objective.teacher, options.teacher_placement, self.device, deepspeed)
        self.engine = initialize(objective, options, deepspeed, self.device)
        self.shards = shards_of(self.engine)
        checkpoints.check_types(self.shards)
        self.average = MovingAverage(self.shards, options.ema) if options.ema else None
        self.means = RunningMeans(self.device)
        self.reporter = Reporter(options.run, self.engine.monitor, steps=options.steps, batch_size=options.batch_size)
        guard = SkipNonFinite if options.on_nonfinite == "skip" else StopOnNonFinite
        self.guard = guard(self.shards, self.stream, options.run, self.reporter.warn)

    def train(self, stop: process_group.StopSignal, *, resume: bool) -> Result:
        """Trains to the last step, or until SIGTERM."""
        restored = self._restore() if resume else None
        if restored is not None and self.step >= self.options.steps:
            ranks.on_rank_zero(lambda: self._export(restored))
            self.reporter.say(f"{self.options.run}: the run is complete ({self.step} steps); nothing to do")
            return Result(self.step, finished=True, already=True)
        wanted = ranks.least(self.engine.module.device_settings(self.device), self.device)
        self.settings = wanted | (ranks.on_rank_zero(lambda: self.record.settings()) if resume else {})
        self.engine.module.use_settings(self.settings)
        ranks.on_rank_zero(self._begin)
        self.reporter.open(self.step)
        try:
            with self.batches() as batches:
                finished = self._steps(batches, stop)
            stop.settle()
        finally:
            self.reporter.close()
        ranks.on_rank_zero(lambda: self.record.record_end(step=self.step, finished=finished))
        return Result(self.step, finished)

    def batches(self) -> ReadAhead:
        """This rank's micro-batches, from the present step to the last."""
        steps = range(self.step, self.options.steps)
        starts = range(self.first, self.first + self.micro * self.accumulation, self.micro)
        return ReadAhead(self.stream, ((k, start, start + self.micro) for k in steps for start in starts), self.device)

    def _steps(self, batches: ReadAhead, stop: process_group.StopSignal) -> bool:
        """All steps; False if a signal ended them."""
        options = self.options
        while self.step < options.steps:
            self._update(batches)
            last = self.step == options.steps
            found = self._diagnose() if _due(self.step, options.diagnostics_every, last) else {}
            means = self._means() if _due(self.step, options.log_every, last) else {}
            warnings = self.engine.module.warnings(found, self.step / options.steps) if found else {}
            self.reporter.report(self.step, means, found, warnings)
            stopped = stop.poll() and not last
            if last or stopped or _due(self.step, options.checkpoint_every, False):
                self._checkpoint(last)
            if stopped:
                self.reporter.say(f"stopped by SIGTERM after step {self.step}; continue with --resume")
                return False
            self.reporter.advance(self.step)
        return True

    def _update(self, batches: ReadAhead) -> None:
        """One optimizer step on the global batch."""
        micro_batches: list[dict[str, torch.Tensor]] = []
        self.engine.module.begin_step(self.step)
        for number in range(self.accumulation):
            if number:
                self.engine.step()  # tells DeepSpeed that a micro-batch is done; the update follows the last one
            micro_batches.append(self._backward(*batches.next()))
        skip = self.guard.should_skip(self.step)
        factor = lr_factor(self.step, self.options.steps, self.options.schedule)
        self.lr, resting = 0.0 if skip else self.options.optimizer.lr * factor, self.engine.module.rests(self.step)
        on_cuda = self.device.type == "cuda"
        set_learning_rate(self.engine.optimizer, self.lr, resting=resting, on_cuda=on_cuda)
        self.engine.step()
        self.step += 1
        if resting:
            self.rested += 1
            self.shards.set_step_count(self.step - self.rested, beside=self.step)
        if skip:
            return
        if self.average is not None and not resting:
            self.average.update(self.step - self.rested)
        for terms in micro_batches:
            self.means.add(terms, self.micro * ranks.world_size())
        if self.step % STEPS_BETWEEN_TRIMS == 0:
            give_back_unused()

    def _backward(self, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        """Adds the gradient of a micro-batch; its terms [B]."""
        # Dropout is the one draw made inside networks; by step and example, it is the same for any ranks and resumption.
        torch.manual_seed((self.run.seed * 1_000_003 + self.step) % 2**64)
        self.examples.first, self.examples.count = draws.first, draws.count
        terms = self.engine(batch, draws, self.step)
        self.guard.observe(terms["loss"], self.step)
        self.engine.backward(terms["loss"].mean())
        return {name: term.detach() for name, term in terms.items()}

    def _means(self) -> dict[str, float]:
        """The terms' means since the last report, learning rate and gradient norm."""
        self.guard.check()
        values = self.means.read()
        if not values:
            return {}
        values["lr"] = self.lr
        norm = self.engine.get_global_grad_norm()
        if norm is not None:
            values["grad_norm"] = float(norm)
        return values

    def _diagnose(self) -> dict[str, float]:
        """Takes the objective's own measurements on the next step's examples."""
        batch, draws = self.stream.batch(self.step, self.first, self.first + self.micro, self.device)
        module = self.engine.module

        def probe_batch(examples: int) -> Batch:
            return self.stream.batch(self.step, 0, examples, self.device)[0]

        with evaluating(module), torch.no_grad():
            found = module.diagnostics(batch, draws.child("diagnostics"), probe_batch)
        return _mean_over_ranks(found, self.device)

    def _checkpoint(self, last: bool) -> None:
        self.guard.check()
        self.guard.check_weights(self.step)
        self.means.merge()
        state = self._state()
        path = checkpoints.save(
            self.options.run / "checkpoints", self.shards, self.average, state, keep=self.options.keep
        )
        saved = checkpoints.Checkpoint(path, state)
        cheap = sum(torch.Size(s).numel() for s in self.shards.shapes.values()) * 4 <= _CHEAP_EXPORT_BYTES
        if last or cheap:
            ranks.on_rank_zero(lambda: self._export(saved))
        ranks.on_rank_zero(lambda: self.record.record_checkpoint(step=self.step))

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step, "optimizer_steps": self.step - self.rested, "optimizer_steps_beside": self.step,
            "seed": self.run.seed, "fingerprint": self.run.fingerprint, "beside": self.beside,
            "world_size": ranks.world_size(), "zero_stage": int(self.engine.zero_optimization_stage()),
            "precision": self.options.precision, "batch_size": self.options.batch_size, "aliases": self.aliases,
            "window": self.means.state(),
        }  # fmt: skip

    def _restore(self) -> checkpoints.Checkpoint | None:
        """Continues from the newest good checkpoint, if there is one."""
        folder = self.options.run / "checkpoints"
        found = ranks.on_rank_zero(lambda: checkpoints.newest(folder, self.reporter.warn))
        if found is None:
            self.reporter.say(f"{self.options.run}: no checkpoint yet; starting from the beginning")
            return None
        saved = found.state["fingerprint"]
        if saved != self.run.fingerprint:
            raise DataError(
                f"the data have changed since {found.path} was written (fingerprint {saved!r}, now {self.run.fingerprint!r}); "
                "restore them, or train in a new folder"
            )
        checkpoints.restore(found, self.shards, self.average)
        self.means.load(found.state["window"])
        self.step = self.engine.global_steps = found.step
        self.rested = found.step - found.state["optimizer_steps"]
        self.engine.global_samples = found.step * self.options.batch_size
        self.reporter.say(f"resumed from {found.path} (step {self.step})")
        return found

    def _begin(self) -> None:
        """Opens the record of this session. Rank 0."""
        facts: dict[str, Any] = {"seed": self.run.seed, "world_size": ranks.world_size(), "from_step": self.step}
        facts["settings"] = self.settings
        facts["deterministic"] = torch.are_deterministic_algorithms_enabled()
        changed = self.record.record_start(
            self.run.spec, facts | {"zero_stage": int(self.engine.zero_optimization_stage())}
        )
        if changed:
            self.reporter.say(f"note: the spec differs from the one that this run began with: {', '.join(changed)}")
        checkpoints.clear_unfinished(self.options.run / "checkpoints")

    def _export(self, saved: checkpoints.Checkpoint) -> None:
        beside = {
            "data": self.run.data,
            "told": self.run.spec,
            "metrics": last_metrics(self.options.run / "metrics.csv"),
        }
        export(saved, self.options.run / "export", self.run.exported_spec, code_commit(), **beside)


def _due(step: int, every: int, last: bool) -> bool:
    """Whether something done every so many steps (0: never) is due; `last` makes it due at the last step too."""
    return bool(every) and (step % every == 0 or last)


def _mean_over_ranks(values: dict[str, float], device: torch.device) -> dict[str, float]:
    if not values or ranks.world_size() == 1:
        return {k: float(v) for k, v in values.items()}
    (tensor,) = ranks.combined(torch.tensor([float(v) for v in values.values()], dtype=torch.float64, device=device))
    return dict(zip(values, (tensor / ranks.world_size()).tolist(), strict=True))
