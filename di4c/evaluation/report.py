"""report.html: the whole comparison on one page that can be mailed."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from di4c.contracts import Metric
from di4c.evaluation.cells import write_atomically
from di4c.evaluation.finding import finding
from di4c.evaluation.frontier import Frontier
from di4c.evaluation.page import facts, folded, image, page, sample_figure, section
from di4c.evaluation.rows import REFERENCE, Row, is_better, metric_names, model_label, number, plain, ratio, told_steps

SHOWN_STEPS = 3
"""Samples are shown for so many of the smallest numbers of steps."""

SIDE_BY_SIDE = ((REFERENCE, None), ("student", "inf"), ("student", "product"))
"""The models whose samples are shown at once."""

PLOT_NOTE = (
    '<p class="note">Bands: one standard deviation over sampling seeds. Dashed: real training data in place of '
    "samples.</p>"
)
TABLE_NOTE = (
    f'<p class="note">Mean ± standard deviation over sampling seeds; × is the ratio to the {REFERENCE} with as many '
    "steps, green where it is better by more than both spreads. “product” samples every position from the student’s λ-averaged marginals: what is "
    "left of the student without correlation. “K atoms” restricts λ to K values. NFE: network calls a sample.</p>"
)


@dataclass(frozen=True)
class Report:
    """What the page shows.

    grids: {(model, mixture size, steps): picture of samples}. data_grid: a picture of real data. facts: (name, value) pairs.
    curves: a PNG of training curves, or None.
    """

    title: str
    rows: Sequence[Row]
    reference_values: Mapping[str, Mapping[str, float]]
    higher_is_better: Mapping[str, bool | None]
    plot: bytes
    grids: Mapping[tuple[str, Any, int], Path]
    data_grid: Path | None
    curves: bytes | None
    spec: str
    facts: Sequence[tuple[str, str]]
    frontier: tuple[bytes, Frontier] | None = None
    metrics: Sequence[Metric] = field(default_factory=tuple)

    def html(self) -> str:
        found = finding(self.rows, self.reference_values, self.higher_is_better)
        body = [
            f"<h1>{escape(self.title)}</h1>",
            f'<p class="lead">{escape(self._lead())}</p>',
            f'<p class="finding">{escape(found)}</p>' if found else "",
            self._cards(),
            section("Quality against steps", image(self.plot, "each metric against the number of steps"), PLOT_NOTE),
            self._frontier(),
            section("All numbers", self._table(), TABLE_NOTE),
            self._samples(),
            section("Training", image(self.curves, "training curves")) if self.curves else "",
            section("What is measured", self._definitions()),
            section("How this was made", facts(self.facts), folded("The spec", f"<pre>{escape(self.spec)}</pre>")),
        ]
        return page(self.title, filter(None, body))

    def write(self, path: Path) -> Path:
        """Writes the page; returns its path."""
        return write_atomically(path, self.html())

    def _lead(self) -> str:
        names = list(dict.fromkeys(row["model"] for row in self.rows))
        steps = sorted({row["steps"] for row in self.rows})
        return f"{', '.join(names)} at {', '.join(map(str, steps))} sampling steps, on held-out data."

    def _cards(self) -> str:
        """The student against the teacher at the smallest numbers of steps, a card a metric."""
        students = [row for row in self.rows if row["model"] == "student" and row["mixture_size"] == "inf"]
        shown = sorted(students, key=lambda row: row["steps"])[:SHOWN_STEPS]
        cards = [
            self._card(name, shown)
            for name in metric_names(shown)
            if self.higher_is_better.get(name, False) is not None
        ]
        inside = "".join(filter(None, cards))
        note = '<p class="note">The student’s value, and its ratio to the teacher’s at as many steps.</p>'
        return f'<div class="cards">{inside}</div>{note}' if inside else ""

    def _card(self, name: str, rows: Sequence[Row]) -> str:
        lines = ""
        for row in rows:
            share = ratio(self.rows, row, name)
            if share is not None:
                value = number(row["metrics"][name]["mean"])
                lines += f"<dt>{told_steps(row['steps'])}</dt><dd>{value}</dd><dd>×{share:.2f}</dd>"
        return f'<div class="card"><h3>{escape(plain(name))}</h3><dl>{lines}</dl></div>' if lines else ""

    def _table(self) -> str:
        names = metric_names(self.rows)
        heads = ["model", "NFE", "ms / sample", *map(plain, names)]
        head = '<th>steps</th><th class="name">' + "</th><th>".join(escape(h) for h in heads) + "</th>"
        lines = [f"<tr>{head}</tr>"]
        for steps in sorted({row["steps"] for row in self.rows}):
            group = [row for row in self.rows if row["steps"] == steps]
            for i, row in enumerate(group):
                first = f'<td class="steps" rowspan="{len(group)}">{steps}</td>' if i == 0 else ""
                lines.append(f"<tr{' class=first' if i == 0 else ''}>{first}{self._row(row, names)}</tr>")
        if self.reference_values:
            known = "".join(f"<td>{self._value(self.reference_values.get(name))}</td>" for name in names)
            lines.append(
                f'<tr class="reference"><td></td><td class="name">training data (reference)</td><td></td><td></td>{known}</tr>'
            )
        return f'<div class="scroll"><table>{"".join(lines)}</table></div>'

    def _row(self, row: Row, names: Sequence[str]) -> str:
        label = escape(model_label(row["model"], row["mixture_size"]))
        plain = f'<td class="name">{label}</td><td>{row["nfe"]:.4g}</td><td>{number(row["latency_ms_per_sample"])}</td>'
        return plain + "".join(
            f"<td>{self._value(row['metrics'].get(name), self._ratio(row, name))}</td>" for name in names
        )

    def _value(self, value: Mapping[str, float] | None, share: str = "") -> str:
        """The mean and its ratio, and on a line below the spread: so a column stays narrow."""
        if value is None:
            return ""
        spread = f'<span class="std">± {number(value["std"], value["mean"])}</span>' if value["std"] else ""
        return number(value["mean"]) + share + spread

    def _ratio(self, row: Row, name: str) -> str:
        share = ratio(self.rows, row, name) if name in row["metrics"] else None
        direction = self.higher_is_better.get(name, False)
        if share is None or direction is None:
            return ""
        return (
            f'<span class="ratio{" better" if is_better(self.rows, row, name, direction) else ""}">×{share:.2f}</span>'
        )

    def _samples(self) -> str:
        """Teacher, student and its product side by side, a line a number of steps; the other models on demand."""
        if not self.grids:
            return ""
        models = list(dict.fromkeys((model, size) for model, size, _ in self.grids))
        main = [key for key in models if key in SIDE_BY_SIDE]
        rest = [key for key in models if key not in SIDE_BY_SIDE]
        real = sample_figure(self.data_grid, "real data", "held out") if self.data_grid is not None else ""
        more = "".join(self._grid_lines(rest))
        return section(
            "Samples", _columns([real]), *self._grid_lines(main), folded("Further models", more) if rest else ""
        )

    def _grid_lines(self, models: Sequence[tuple[str, Any]]) -> list[str]:
        steps = sorted({n for _, _, n in self.grids})[:SHOWN_STEPS]
        lines = [[(key, n, self.grids.get((*key, n))) for key in models] for n in steps]
        return [
            _columns([sample_figure(p, model_label(*key), told_steps(n)) for key, n, p in line if p]) for line in lines
        ]

    def _frontier(self) -> str:
        """Quality against entropy, and whose curves are reached."""
        if self.frontier is None:
            return ""
        plot, curves = self.frontier
        lines = "".join(f"<li>{escape(line)}</li>" for line in curves.told())
        note = (
            '<p class="note">A point a temperature, filled at the one nearest to 1; star: training data. A model reaches a curve of the '
            "teacher if, at the entropies of that curve’s points that it spans, its value, interpolated between its points, is in the "
            "mean no worse than the teacher’s by more than the spread over sampling seeds.</p>"
        )
        picture = image(plot, f"{curves.quality} against {curves.entropy}")
        return section("Quality against entropy", picture, f"<ul>{lines}</ul>" if lines else "", note)

    def _definitions(self) -> str:
        texts = {type(metric): inspect.getdoc(type(metric)) or "" for metric in self.metrics}
        return "".join(f"<pre>{escape(text)}</pre>" for text in texts.values())


def _columns(figures: Sequence[str]) -> str:
    return f'<div class="grids">{"".join(figures)}</div>'
