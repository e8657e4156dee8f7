"""Models × mixture sizes × steps × seeds, each cell sampled and measured once and kept on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from di4c.config.eval_spec import MixtureSize
from di4c.contracts import DataSource, Draws, Generation, Metric, Sampler, Tempering
from di4c.contracts.lent import sampling
from di4c.errors import SpecError
from di4c.evaluation.cells import Cell, CellStore, Measurement, writing
from di4c.evaluation.generation import Recipe, training_labels
from di4c.evaluation.models import Model
from di4c.evaluation.rows import mean_calls, told_steps
from di4c.ranks import Ranks

GRID_SAMPLES = 100


@dataclass(frozen=True)
class Entrant:
    """One model of the comparison. `model(draws)` builds it for a seed (K atoms are shifted by the draws).

    identity: what its results depend on besides the sweep's settings: digest of the weights, sampler entry.
    """

    name: str
    mixture_size: MixtureSize
    model: Callable[[Draws], Model]
    sampler: Sampler
    identity: Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """The settings of a comparison. metrics: (entry of the spec, metric) pairs; say(done, total, text) tells of progress.

    code: what else tells the metrics apart from others of the same entries, the digest of plugins.
    tempering: of all samples; likelihoods are of the models as they are.
    All draws of a cell are keyed by its seed alone: all models see the same labels, x_1 and uniform numbers, and the result
    does not depend on the number of ranks.
    """

    data: DataSource
    metrics: Sequence[tuple[Mapping[str, Any], Metric]]
    store: CellStore
    steps: Sequence[int]
    seeds: Sequence[int]
    samples: int
    batch_size: int
    tempering: Tempering | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    ranks: Ranks = field(default_factory=Ranks)
    say: Callable[[int, int, str], None] = lambda done, total, text: None

    def run(self, entrants: Sequence[Entrant]) -> list[Measurement]:
        """Measures every cell that is not on disk yet; all measurements on the first rank, [] on the others. Collective."""
        work = [(e, n, seed) for e in entrants for n in self.steps for seed in self.seeds]
        pairs = [(self._cell("samples", *item), self._cell("likelihood", *item)) for item in work]
        missing = self.ranks.broadcast([[not self._done(cell) for cell in pair] for pair in pairs])
        total, done = sum(map(sum, missing)), 0
        for item, (cell, _), (wanted, _) in zip(work, pairs, missing, strict=True):
            if wanted:
                self.say(done, total, _told(cell))
                self._measure_samples(*item, cell)
                done += 1
        for turn, (item, (_, cell), (_, wanted)) in enumerate(zip(work, pairs, missing, strict=True)):
            if wanted:
                if turn % self.ranks.size == self.ranks.rank:
                    self.say(done, total, _told(cell))
                    self._measure_likelihood(*item, cell)
                done += 1
        self.ranks.barrier()
        self.say(total, total, "")
        return [self._measurement(*pair) for pair in pairs] if self.ranks.first else []

    def reference_values(self) -> list[dict[str, float]]:
        """For every seed what the metrics say of real training data, at the same sample size."""
        return [
            _merged(m.reference_values(self.samples, self._draws(seed).child("floor")) for _, m in self.metrics)
            for seed in self.seeds
        ]

    def _measure_samples(self, entrant: Entrant, steps: int, seed: int, cell: Cell) -> None:
        """Samples one cell with all ranks; the first one measures and stores."""
        draws = self._draws(seed)
        cond = training_labels(self.data, draws)
        model = entrant.model(draws.child("model"))
        number = -(-self.samples // self.batch_size)
        recipe = Recipe(model, entrant.sampler, self.data.num_positions, steps, tempering=self.tempering)
        made = recipe.batches(cond, draws, self.batch_size, self.ranks.share(number))
        x_0, rows = self.ranks.gather_rows(made.x_0, self._shares(number)), self.ranks.total(made.rows)
        if not self.ranks.first:
            return
        cond = None if cond is None else cond.cpu()
        generation = recipe.generation(x_0, cond, draws.child("metrics"))
        grid = self._save_grid(cell, x_0, cond) if seed == self.seeds[0] else None
        with sampling(self.tempering):  # a metric may sample again, with a teacher's help too
            values = self._values(generation, needs_samples=True)
        self.store.save(cell, {"nfe": mean_calls(rows, len(x_0)), "seconds": made.seconds, "grid": grid, **values})

    def _measure_likelihood(self, entrant: Entrant, steps: int, seed: int, cell: Cell) -> None:
        """What needs no samples, by one rank alone."""
        draws = self._draws(seed)
        model = entrant.model(draws.child("model"))
        nothing = torch.empty(0, self.data.num_positions, dtype=torch.int64)
        recipe = Recipe(model, entrant.sampler, self.data.num_positions, steps)
        generation = recipe.generation(nothing, None, draws.child("metrics"))
        self.store.save(cell, self._values(generation, needs_samples=False))

    def _values(self, generation: Generation, *, needs_samples: bool) -> dict[str, Any]:
        """{"metrics": {name: value}, "higher_is_better": {name: …}} of the metrics that do, or do not, look at samples."""
        found = [(metric, metric(generation)) for _, metric in self.metrics if metric.needs_samples == needs_samples]
        directions = {name: way for metric, values in found for name, way in metric.directions(values).items()}
        return {"metrics": _merged(values for _, values in found), "higher_is_better": directions}

    def _draws(self, seed: int) -> Draws:
        return Draws(seed, count=self.samples, path=("evaluation",), device=self.ranks.device)

    def _shares(self, number: int) -> list[int]:
        """How many of the samples each rank makes."""
        shares = [replace(self.ranks, rank=rank).share(number) for rank in range(self.ranks.size)]
        return [
            min(s.stop * self.batch_size, self.samples) - min(s.start * self.batch_size, self.samples) for s in shares
        ]

    def _cell(self, kind: str, entrant: Entrant, steps: int, seed: int) -> Cell:
        with_samples = kind == "samples"
        metrics = [entry for entry, metric in self.metrics if metric.needs_samples == with_samples]
        settings = dict(entrant.identity) | {"data": self._fingerprint, "metrics": metrics}
        settings |= {"metrics_code": self.code} if self.code else {}
        if with_samples:
            settings |= {"samples": self.samples, "batch_size": self.batch_size}
            settings |= {} if self.tempering is None else asdict(self.tempering)
        return Cell(kind, entrant.name, entrant.mixture_size, steps, seed, settings)

    def _done(self, cell: Cell) -> bool:
        if cell.kind == "likelihood" and not cell.settings["metrics"]:
            return True
        result = self.store.find(cell)
        if result is None or cell.kind == "likelihood":
            return result is not None
        pictured = cell.seed != self.seeds[0] or result["grid"] is not None
        return pictured and (result["grid"] is None or (self.store.folder / result["grid"]).exists())

    def _measurement(self, cell: Cell, likelihood: Cell) -> Measurement:
        found, more = self.store.find(cell), {"metrics": {}, "higher_is_better": {}}
        if likelihood.settings["metrics"]:
            more = self.store.find(likelihood)
        if found is None or more is None:
            raise SpecError(
                f"{self.store.folder}: results of other ranks are not here; all ranks must see the same folder"
            )
        return Measurement(
            model=cell.model, mixture_size=cell.mixture_size, steps=cell.steps, seed=cell.seed, nfe=found["nfe"],
            seconds=found["seconds"], metrics=_merged([found["metrics"], more["metrics"]]),
            higher_is_better=found["higher_is_better"] | more["higher_is_better"],
            grid=self.store.folder / found["grid"] if found["grid"] else None,
        )  # fmt: skip

    def _save_grid(self, cell: Cell, x_0: Tensor, cond: Tensor | None) -> str | None:
        """Name of the picture, or None for data that have none."""
        rows = grid_examples(cond, len(x_0))
        path = self.store.folder / cell.key
        try:
            with writing(path):
                return self.data.save_grid(x_0[rows], path, None if cond is None else cond[rows]).name
        except NotImplementedError:
            return None

    @cached_property
    def _fingerprint(self) -> str:
        return self.data.fingerprint()


def grid_examples(cond: Tensor | None, num: int, at_most: int = GRID_SAMPLES) -> Tensor:
    """The examples to show: [≤ at_most] int64, equally many of (at most ten) classes, or the first ones without labels."""
    if cond is None:
        return torch.arange(min(num, at_most))
    classes = cond.unique()
    chosen = classes[torch.linspace(0, len(classes) - 1, min(10, len(classes))).round().long()]
    each = max(1, at_most // len(chosen))
    return torch.cat([torch.nonzero(cond == label)[:each, 0] for label in chosen])


def _merged(parts: Any) -> dict[str, float]:
    """One mapping of all values; SpecError if two metrics give one name."""
    merged: dict[str, float] = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise SpecError(f"eval.metrics: two metrics report {', '.join(sorted(twice))}; leave one out")
        merged |= part
    return merged


def _told(cell: Cell) -> str:
    mixture = "" if cell.mixture_size is None else f" (λ: {cell.mixture_size})"
    return f"{cell.model}{mixture}, {told_steps(cell.steps)}, seed {cell.seed}, {cell.kind}"
