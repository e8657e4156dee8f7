"""Measurements → rows, and the rows as eval.json, eval.csv and a table in the terminal."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from di4c.evaluation.cells import Measurement, write_atomically
from di4c.evaluation.rows import Row, is_better, mean_calls, metric_names, model_label, number, plain, ratio
from di4c.files import csv_text

ENDS = (("", "mean"), ("_std", "std"))
"""What is written of a value over seeds: endings of columns, and keys."""


def rows_of(measurements: Iterable[Measurement]) -> list[Row]:
    """A row for each model, mixture size and number of steps, in order of appearance; mean and std are over seeds."""
    groups: dict[tuple, list[Measurement]] = {}
    for m in measurements:
        groups.setdefault((m.model, m.steps, m.mixture_size), []).append(m)
    return [
        {
            "model": model,
            "steps": steps,
            "mixture_size": mixture_size,
            "nfe": mean_calls(sum(m.nfe for m in group), len(group)),
            "latency_ms_per_sample": latency_ms(m.seconds for m in group),
            "metrics": {name: spread(m.metrics[name] for m in group) for name in group[0].metrics},
        }
        for (model, steps, mixture_size), group in groups.items()
    ]


def latency_ms(cells: Iterable[Sequence[float]]) -> float:
    """Median over batches of a sequence's sampling time; the first batch of a cell is its warm-up, if there are others."""
    return 1000 * statistics.median(s for seconds in cells for s in (seconds[1:] or seconds))


def spread(values: Iterable[float]) -> dict[str, float]:
    """{"mean", "std"} of the values; the std of a single one is 0, of values that are not all finite nan."""
    values = list(values)
    if not all(map(math.isfinite, values)):
        return {"mean": sum(values) / len(values), "std": math.nan}
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def write_json(path: Path, rows: Sequence[Row], **more: Any) -> Path:
    """Writes {"rows": …, **more}; NaN becomes null, since JSON has none."""
    text = json.dumps(_finite({"rows": list(rows), **more}), indent=1, ensure_ascii=False, allow_nan=False)
    return write_atomically(path, text + "\n")


def write_csv(path: Path, rows: Sequence[Row]) -> Path:
    """Writes a line a row; each metric has the columns NAME and NAME_std."""
    columns = ["model", "steps", "mixture_size", "nfe", "latency_ms_per_sample"]
    lines = [
        {name: "" if row[name] is None else row[name] for name in columns}
        | {
            f"{name}{end}": row["metrics"].get(name, {}).get(key, "")
            for name in metric_names(rows)
            for end, key in ENDS
        }
        for row in rows
    ]
    return write_atomically(path, csv_text(lines, columns))


def terminal_table(
    rows: Sequence[Row],
    reference_values: Mapping[str, Mapping[str, float]],
    higher_is_better: Mapping[str, bool | None],
) -> Table:
    """The table for people: grouped by steps, each value with its ratio to the teacher's, green where it is better by more than the spreads."""
    names = metric_names(rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False,
                  title="× is the ratio to the teacher at the same number of steps", title_style="dim",
                  title_justify="left")  # fmt: skip
    table.add_column("steps", justify="right")
    table.add_column("model", no_wrap=True)
    table.add_column("ms / sample", justify="right", max_width=6)
    for name in names:
        table.add_column(plain(name), justify="right", max_width=13)
    ordered = sorted(rows, key=lambda row: row["steps"])
    for i, row in enumerate(ordered):
        first, last = (not 0 <= j < len(ordered) or ordered[j]["steps"] != row["steps"] for j in (i - 1, i + 1))
        cells = [_cell(rows, row, name, higher_is_better.get(name, False)) for name in names]
        label = model_label(row["model"], row["mixture_size"])
        steps = str(row["steps"]) if first else ""
        table.add_row(steps, label, number(row["latency_ms_per_sample"]), *cells, end_section=last)
    if reference_values:
        known = [number(reference_values[name]["mean"]) if name in reference_values else "" for name in names]
        table.add_row("", "training data (reference)", "", *known, style="dim")
    return table


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints the table, at its own width where the terminal's is unknown."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=200)
    console.print(table)


def _cell(rows: Sequence[Row], row: Row, name: str, higher_is_better: bool | None) -> str:
    if name not in row["metrics"]:
        return ""
    value = number(row["metrics"][name]["mean"])
    share = ratio(rows, row, name)
    if share is None or higher_is_better is None:
        return value
    return f"{value} [{'green' if is_better(rows, row, name, higher_is_better) else 'dim'}]×{share:.2f}[/]"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
