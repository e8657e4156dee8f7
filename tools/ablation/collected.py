"""What the evaluations of a grid found: one table of means over training seeds, as JSON, as Markdown and as a figure."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from di4c.engine.run_folder import code_commit, trained_seconds
from di4c.errors import DataError
from di4c.evaluation.cells import write_atomically
from di4c.evaluation.plots import metrics_figure
from di4c.evaluation.rows import Row, metric_names, number, sign_of_worse
from di4c.evaluation.table import spread, write_json
from di4c.files import read_json
from di4c.old_keys import reference_values
from tools.ablation.grid import Grid, Trial
from tools.research.page_tables import markdown_table, over_seeds

FACTORS = (2, 4)
"""A row's n steps are compared with so many times as many of the reference's."""


@dataclass(frozen=True)
class Collected:
    """rows: of every row of the grid, number of steps and mixture size, over training seeds; see `collect`.

    reference_values, higher_is_better: of the metrics. runs: {"row", "seed", "run", "seconds"} of every run that is evaluated.
    """

    rows: list[Row]
    reference_values: dict[str, dict[str, float]]
    higher_is_better: dict[str, bool | None]
    runs: list[dict[str, Any]]


def collect(trials: Iterable[Trial]) -> Collected:
    """What is evaluated so far. A row's metrics: {name: {"mean", "std", "sampling_std", "seeds": {training seed: mean}}}.

    mean and std: over training seeds, of the means over sampling seeds; std is 0 of a single one. sampling_std: the spread over
    sampling seeds, root mean square over training seeds.
    """
    groups: dict[tuple, list[tuple[int, Row]]] = {}
    known: dict[str, dict[str, float]] = {}
    directions: dict[str, bool | None] = {}
    runs = []
    for trial in trials:
        file = trial.folder / "eval" / "eval.json"
        if not file.exists():
            continue
        found = read_json(file, {"rows": list, "higher_is_better": dict})
        known, directions = reference_values(found) | known, found["higher_is_better"] | directions
        seconds = trained_seconds(trial.run)
        runs.append({"row": trial.name, "seed": trial.seed, "run": str(trial.run), "seconds": seconds})
        for row in found["rows"]:
            groups.setdefault((trial.name, row["steps"], row["mixture_size"]), []).append((trial.seed, row))
    rows = [_row(*key, of_seeds) for key, of_seeds in groups.items()]
    return Collected(rows, known, directions, runs)


def reached(found: Collected, judged: str, reference: str) -> list[dict[str, Any]]:
    """Of every other row at n steps against the reference at 2n and 4n: is it as good?

    {"row", "steps", "reference_steps", "difference", "spread", "reached"}. difference: row − reference in the judged metric, mean over
    training seeds, positive where the row is worse; spread: of such a difference over sampling seeds, √(σ²_row + σ²_reference).
    reached: the difference is at most one spread above 0. Raises DataError where it is not known which way the metric is good.
    """
    sign = sign_of_worse(found.higher_is_better, judged, "judged")
    whole = [row for row in found.rows if row["mixture_size"] in (None, "inf") and judged in row["metrics"]]
    known = {(row["model"], row["steps"]): row["metrics"][judged] for row in whole}
    compared = []
    for (name, steps), value in known.items():
        for factor in FACTORS:
            other = known.get((reference, factor * steps))
            if name == reference or other is None:
                continue
            difference = sign * (value["mean"] - other["mean"])
            width = math.hypot(value["sampling_std"], other["sampling_std"])
            compared.append({
                "row": name, "steps": steps, "reference_steps": factor * steps, "difference": difference, "spread": width,
                "reached": difference <= width,
            })  # fmt: skip
    return compared


def write(found: Collected, grid: Grid, trials: Sequence[Trial], out: Path) -> str:
    """Writes ablation.json, .md and .png to a folder that is there; the Markdown's text. Raises DataError without the judged metric."""
    if not found.rows:
        raise DataError(f"{out}: nothing is evaluated yet")
    names = sorted(metric_names(found.rows), key=lambda name: name != grid.judged)
    if grid.judged not in names:
        raise DataError(f"judged: no metric {grid.judged!r} was measured; there are {', '.join(names)}")
    chosen = grid.reference or next(iter(grid.rows))
    reference = next(trial.name for trial in trials if trial.row == chosen)
    compared = reached(found, grid.judged, reference)
    more = {
        "about": grid.about, "judged": grid.judged, "reference": reference, "reached": compared, "runs": found.runs,
        "reference_values": found.reference_values, "higher_is_better": found.higher_is_better, "commit": code_commit(),
        "specs": {trial.label: trial.spec.to_dict() for trial in trials if trial.spec is not None},
    }  # fmt: skip
    write_json(out / "ablation.json", found.rows, **more)
    text = _markdown(found, reference, compared, names)
    write_atomically(out / "ablation.md", text)
    ordered = [row | {"metrics": {n: row["metrics"][n] for n in names if n in row["metrics"]}} for row in found.rows]
    write_atomically(out / "ablation.png", metrics_figure(ordered, found.reference_values, found.higher_is_better))
    return text


def _row(name: str, steps: int, mixture_size: Any, of_seeds: Sequence[tuple[int, Row]]) -> Row:
    metrics = {}
    for metric in of_seeds[0][1]["metrics"]:
        values = {seed: row["metrics"][metric] for seed, row in of_seeds if metric in row["metrics"]}
        known = {seed: _number(value["mean"]) for seed, value in values.items()}
        width = math.sqrt(statistics.fmean(_number(value["std"]) ** 2 for value in values.values()))
        metrics[metric] = spread(known.values()) | {"sampling_std": width, "seeds": known}
    first = of_seeds[0][1]
    latency = statistics.fmean(row["latency_ms_per_sample"] for _, row in of_seeds)
    return {
        "model": name, "steps": steps, "mixture_size": mixture_size, "nfe": first["nfe"], "latency_ms_per_sample": latency,
        "metrics": metrics,
    }  # fmt: skip


def _markdown(found: Collected, reference: str, compared: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    parts = [_table(found, name, "" if k else "judged, ") for k, name in enumerate(names)]
    told = [
        f"- {c['row']} at {c['steps']} against {reference} at {c['reference_steps']}: {c['difference']:+.4f}, spread "
        f"{c['spread']:.4f}: {'reached' if c['reached'] else 'not reached'}"
        for c in compared
    ]
    return "\n\n".join([*parts[:1], *(["\n".join(told)] if told else []), *parts[1:]]) + "\n"


def _table(found: Collected, metric: str, what: str) -> str:
    """One metric: a line a row, a column a number of steps, mean ± spread over training seeds."""
    steps, lines = over_seeds(found.rows, metric)
    better = found.higher_is_better.get(metric)
    good = "" if better is None else f"{what}{'higher' if better else 'lower'} is better; "
    reference = found.reference_values.get(metric)
    known = "" if reference is None else f"; training data {number(reference['mean'])}"
    title = f"**{metric}** ({good}mean ± spread over training seeds{known})"
    return f"{title}\n\n{markdown_table(['steps', *map(str, steps)], lines)}"


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
