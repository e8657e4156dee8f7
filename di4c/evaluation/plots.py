"""eval.png and the training curves."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from di4c.engine.metrics import MetricsFile
from di4c.evaluation.rows import Row, metric_names, model_label, plain
from di4c.evaluation.style import FAINT, INK, REFERENCE_LINE, looks, quiet_axes

COLUMNS = 3
LEGEND = 5
"""The most names in a line above the panels."""

DPI = 160
NOT_CURVES = ("step", "lr", "examples_per_second")

LOG_FROM = 4
"""Values whose largest is this many times the smallest are drawn on a logarithmic axis."""

BELOW = 1.3
"""How far below its lowest value such an axis goes: a band that reaches 0 has no end there."""


def metrics_figure(
    rows: Sequence[Row],
    reference_values: Mapping[str, Mapping[str, float]],
    higher_is_better: Mapping[str, bool | None],
) -> bytes:
    """A PNG: one panel a metric, the metric against steps, a line a model and mixture size, bands of one std, reference_values dashed."""
    names = metric_names(rows)
    figure, panels = panels_of(len(names))
    for axes, name in zip(panels, names, strict=True):
        _draw_metric(axes, name, rows, reference_values.get(name))
        axes.set_title(_title(name, higher_is_better.get(name, False)), fontsize=10.5, color=INK, loc="left")
    legend_above(figure, panels)
    return png(figure)


def training_figure(curves: Mapping[str, Path]) -> bytes | None:
    """A PNG of the columns of metrics.csv files, {run name: file}; None if there is nothing to draw."""
    series = {name: read_curves(path) for name, path in curves.items() if path.exists()}
    columns = list(dict.fromkeys(key for values in series.values() for key in values))
    if not columns:
        return None
    figure, panels = panels_of(len(columns), height=2.3)
    styles = looks([(name, None) for name in series])
    for axes, column in zip(panels, columns, strict=True):
        for name, values in series.items():
            if column in values:
                steps, y = values[column]
                axes.plot(steps, y, color=styles[name, None].colour, linewidth=1.3, label=name)
        axes.locator_params(axis="x", nbins=5, integer=True)
        quiet_axes(axes)
        axes.set_title(column.replace("_", " "), fontsize=9.5, color=INK, loc="left")
    legend_above(figure, panels)
    return png(figure)


def read_curves(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """{column: (steps, values)} of a metrics.csv, without empty fields and columns that say nothing new."""
    rows, curves = MetricsFile(path).rows(), {}
    for column in rows[0] if rows else ():
        points = [(int(float(row["step"])), _float(row[column])) for row in rows if row[column]]
        points = [(step, value) for step, value in points if math.isfinite(value)]
        curve = ([step for step, _ in points], [value for _, value in points])
        if column not in NOT_CURVES and len(set(curve[1])) > 1 and curve not in curves.values():
            curves[column] = curve
    return curves


def _draw_metric(axes: Any, name: str, rows: Sequence[Row], known: Mapping[str, float] | None) -> None:
    shown = [row for row in rows if name in row["metrics"]]
    styles = looks(list(dict.fromkeys((row["model"], row["mixture_size"]) for row in shown)))
    logarithmic = _scale(
        axes, means := [row["metrics"][name]["mean"] for row in shown] + ([known["mean"]] if known else [])
    )
    lowest = min(m for m in means if math.isfinite(m)) / BELOW if logarithmic else -math.inf
    for key, look in styles.items():
        line = sorted(
            (row for row in shown if (row["model"], row["mixture_size"]) == key), key=lambda row: row["steps"]
        )
        steps = [row["steps"] for row in line]
        mean, std = ([row["metrics"][name][part] for row in line] for part in ("mean", "std"))
        axes.plot(steps, mean, color=look.colour, marker=look.marker, linestyle=look.line, linewidth=look.width,
                  markersize=5.5, markeredgecolor="white", markeredgewidth=0.6, label=model_label(*key))  # fmt: skip
        low, high = ([max(m + sign * s, lowest) for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.15, linewidth=0)
    if known is not None:
        axes.axhline(
            known["mean"], color=REFERENCE_LINE, linestyle="--", linewidth=1.1, label="training data (reference)"
        )
    steps = sorted({row["steps"] for row in shown})
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    quiet_axes(axes)


def _scale(axes: Any, values: Sequence[float]) -> bool:
    """A logarithmic axis with readable numbers where the values span much, else a linear one; whether it is the former."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [v for v in values if math.isfinite(v)]
    logarithmic = bool(values) and min(values) > 0 and max(values) > LOG_FROM * min(values)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    return logarithmic


def panels_of(count: int, height: float = 3.0, label: str = "steps", few: bool = False) -> tuple[Any, list[Any]]:
    """A figure and its `count` axes, the label below the lowest; few: four of them in two lines of two."""
    from matplotlib.figure import Figure

    columns = 2 if count == 4 and few else min(count, COLUMNS)
    lines = -(-count // columns)
    figure = Figure(figsize=(3.9 * columns, height * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in grid[count:]:
        axes.set_visible(False)
    for i, axes in enumerate(grid[:count]):
        if i + columns >= count:
            axes.set_xlabel(label, fontsize=9.5, color=FAINT)
    return figure, list(grid[:count])


def legend_above(figure: Any, panels: Sequence[Any]) -> None:
    """One legend for all panels, above them."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) > 1:
        columns = -(-len(found) // -(-len(found) // LEGEND))  # in lines of nearly equal length
        figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns, frameon=False, fontsize=9.5,
                      labelcolor=INK)  # fmt: skip


def _title(name: str, higher_is_better: bool | None) -> str:
    arrow = "" if higher_is_better is None else "  (higher is better)" if higher_is_better else "  (lower is better)"
    return plain(name) + arrow


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def png(figure: Any, dpi: int = DPI) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()
