"""The same spec over several training seeds: what of a result is chance."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from di4c.contracts import Measured, Pipeline, Runs
from di4c.errors import SpecError
from di4c.files import csv_text

COLUMNS = ("steps", "metric", "mean", "low", "high")


class Seeds(Pipeline):
    """Trains the spec with each of `seeds` instead of its own, RUN/seed-0 and so on, and measures every run alike.

    RUN/seeds.json and seeds.csv: of every metric of the eval section, at each of its numbers of steps, the mean and range over
    training seeds of the means over sampling seeds. The whole is the first seed's run: choosing the best would choose by chance.
    """

    def __init__(self, *, seeds: list[int]):
        if not seeds or len(set(seeds)) < len(seeds):
            raise SpecError(f"pipeline.seeds: expected different whole numbers, found {seeds}.")
        self.names = {f"seed-{seed}": seed for seed in seeds}

    def planned(self, spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        if "eval" not in spec:
            raise SpecError("pipeline: seeds are compared by an eval section, and there is none.")
        return {name: {**spec, "seed": seed} for name, seed in self.names.items()}

    def run(self, runs: Runs) -> str:
        found: dict[str, dict[int, dict[str, Measured]]] = {}
        for name, spec in self.planned(runs.spec).items():
            runs.say(f"seed {spec['seed']}, {len(found) + 1} of {len(self.names)}: {runs.folder / name}")
            runs.train(name, spec)
            found[name] = {steps: runs.evaluate(name, steps) for steps in spec["eval"]["steps"]}
            self._write(runs, found)
        return next(iter(found))

    def _write(self, runs: Runs, found: Mapping[str, Mapping[int, Mapping[str, Measured]]]) -> None:
        """What is known so far."""
        columns = [*COLUMNS, *found]
        rows = [dict(zip(columns, row, strict=True)) for row in _rows(list(found.values()))]
        runs.write("seeds.csv", csv_text(rows, columns))
        content = {"seeds": [self.names[name] for name in found], "rows": rows}
        runs.write("seeds.json", json.dumps(content, indent=1) + "\n")


def _rows(runs: Sequence[Mapping[int, Mapping[str, Measured]]]) -> list[tuple]:
    """(steps, metric, mean, low, high, the value of each run), in the order of the first run."""
    rows = []
    for steps, metrics in runs[0].items():
        for name in metrics:
            means = [run[steps][name].mean for run in runs]
            rows.append((steps, name, statistics.fmean(means), min(means), max(means), *means))
    return rows
