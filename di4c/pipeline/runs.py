"""The runs of one spec, trained by the engine and measured by the evaluation."""

import dataclasses
import gc
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from di4c import ranks
from di4c.config.build import Parts, build_data, build_process, build_teacher
from di4c.config.pipeline import run_spec, shared_values
from di4c.config.registry import Registry
from di4c.config.resuming import is_trained, refuse_edited, refuse_orphans
from di4c.config.spec import Spec
from di4c.contracts import Measured, Runs
from di4c.engine.card import last_metrics
from di4c.engine.exported import exported_step
from di4c.engine.run_folder import trained_seconds
from di4c.errors import SpecError
from di4c.evaluation.cells import Measurement
from di4c.evaluation.comparison import entrant, sweep_of
from di4c.evaluation.loaded import LoadedModel, load
from di4c.evaluation.rows import REFERENCE
from di4c.evaluation.table import rows_of
from di4c.files import replace_file
from di4c.pipeline.training import train_spec
from di4c.ranks import Ranks

T = TypeVar("T")


class Interrupted(BaseException):
    """A signal has ended a run, whose checkpoint is written; as KeyboardInterrupt, no pipeline's `except Exception` holds it up."""


class SpecRuns(Runs):
    """`Runs` on this rank."""

    def __init__(self, spec: Spec, registry: Registry, device: torch.device):
        self._spec, self._registry = spec, registry
        self._ranks = Ranks(ranks.rank(), ranks.world_size(), str(device))
        self.spec = shared_values(spec)
        self.folder = spec.train.run

    def train(self, name: str, spec: Mapping[str, Any]) -> None:
        run = run_spec(self._spec, name, spec)
        if ranks.on_rank_zero(lambda: self._is_done(run)):
            return
        finished = train_spec(run, resume=True).finished
        gc.collect()  # the run's engine and teacher, before the next ones are built
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not finished:
            raise Interrupted

    def evaluate(self, name: str | None, steps: int) -> dict[str, Measured]:
        if self._spec.eval is None:
            raise SpecError(
                f"{self._spec.source}: eval: missing; the pipeline measures with its sampler, samples and seeds"
            )
        model = self._teacher() if name is None else load(self.folder / name, device=self._ranks.device)
        compared = entrant(name or REFERENCE, None if model.student is None else "inf", model)
        settings = dataclasses.replace(self._spec.eval, steps=[steps])
        found = sweep_of(model, settings, self.folder / "measured", self._ranks).run([compared])
        return self._ranks.broadcast(_measured(found) if self._ranks.first else None)

    def training_values(self, name: str) -> dict[str, float]:
        return ranks.on_rank_zero(lambda: last_metrics(self.folder / name / "metrics.csv", without={"step"}))

    def seconds(self, name: str) -> float:
        return ranks.on_rank_zero(lambda: trained_seconds(self.folder / name) or 0.0)

    def read(self, file: str) -> str | None:
        path = self.folder / file
        return ranks.on_rank_zero(lambda: path.read_text(encoding="utf-8") if path.exists() else None)

    def write(self, file: str, text: str) -> None:
        ranks.on_rank_zero(lambda: replace_file(self.folder / file, text))

    def on_rank_zero(self, action: Callable[[], T]) -> T:
        return ranks.on_rank_zero(action)

    def say(self, text: str) -> None:
        if self._ranks.first:
            print(text, flush=True)

    def _is_done(self, run: Spec) -> bool:
        """Whether nothing is left to train of a run. Raises SpecError where what was trained is not what its spec says now."""
        refuse_edited(run, inner=True)
        if exported_step(run.train.run / "export") < run.train.steps:
            refuse_orphans(run.train.run, (file.parent for file in self.folder.glob("*/spec.yaml")))
        return is_trained(run)

    def steps(self) -> int:
        """Updates of all runs together."""
        return sum(exported_step(export) for export in self.folder.glob("*/export"))

    def _teacher(self) -> LoadedModel:
        """The teacher that the spec names."""
        spec = self._spec
        data = build_data(spec, self._registry)
        process = build_process(spec, self._registry, data)
        parts = Parts(data, process, build_teacher(spec, self._registry, data, process))
        return LoadedModel(self.folder, spec, parts, device=self._ranks.device)


def _measured(found: list[Measurement]) -> dict[str, Measured]:
    """The metrics of one model at one number of steps, over its seeds."""
    directions = {name: better for m in found for name, better in m.higher_is_better.items()}
    values = rows_of(found)[0]["metrics"]
    return {name: Measured(value["mean"], value["std"], directions[name]) for name, value in values.items()}
