"""frontier.png."""

from collections.abc import Mapping, Sequence
from typing import Any

from di4c.evaluation.frontier import Curve, Frontier
from di4c.evaluation.plots import legend_above, panels_of, png
from di4c.evaluation.rows import REFERENCE, Row, model_label, plain, told_steps
from di4c.evaluation.style import FAINT, INK, REFERENCE_LINE, Look, looks, quiet_axes

GREYS = ("#c4c8d0", "#9aa0ac", "#6f7683", "#2b2f38")


def frontier_figure(frontier: Frontier, reference_values: Mapping[str, Mapping[str, float]]) -> bytes:
    """A PNG: a panel a number of steps, quality against entropy; all curves of the teacher in grey, those of the panel's steps in colour.

    A point a temperature, the one nearest to 1 filled; training data a star.
    """
    steps = sorted({row["steps"] for row in frontier.rows if row["model"] != REFERENCE}) or [0]
    figure, axes_of = panels_of(len(steps), height=3.4, label=plain(frontier.entropy), few=True)
    teacher = sorted({row["steps"] for row in frontier.rows if row["model"] == REFERENCE})
    others = list(dict.fromkeys((r["model"], r["mixture_size"]) for r in frontier.rows if r["model"] != REFERENCE))
    styles = looks(others)
    for axes, number in zip(axes_of, steps, strict=True):
        for place, of_teacher in enumerate(teacher):
            look = Look(GREYS[place * (len(GREYS) - 1) // max(len(teacher) - 1, 1)], "o", width=1.3)
            curve = _draw(axes, frontier, (REFERENCE, None), of_teacher, look, "teacher, steps at its end")
            axes.annotate(str(of_teacher), (curve.entropy[0], curve.quality[0]), xytext=(-4, 2), textcoords="offset points",
                          ha="right", fontsize=8.5, color=look.colour)  # fmt: skip
        for key in others:
            _draw(axes, frontier, key, number, styles[key], model_label(*key))
        if {frontier.quality, frontier.entropy} <= reference_values.keys():
            real = [reference_values[name]["mean"] for name in (frontier.entropy, frontier.quality)]
            axes.plot(*real, "*", color=REFERENCE_LINE, markersize=11,
                      label="training data")  # fmt: skip
        axes.set_title(told_steps(number) if number else "teacher", fontsize=10.5, color=INK, loc="left")
        axes.margins(x=0.12)
        quiet_axes(axes)
    way = "higher" if frontier.higher_is_better else "lower"
    axes_of[0].set_ylabel(f"{plain(frontier.quality)} ({way} is better)", fontsize=9.5, color=FAINT)
    _share(axes_of)
    legend_above(figure, axes_of)
    return png(figure)


def _draw(axes: Any, frontier: Frontier, key: tuple[str, Any], steps: int, look: Look, label: str) -> Curve:
    rows = [r for r in frontier.rows if (r["model"], r["mixture_size"]) == key and r["steps"] == steps]
    curve = Curve.of(rows, frontier.quality, frontier.entropy)
    axes.plot(curve.entropy, curve.quality, color=look.colour, linestyle=look.line, linewidth=look.width,
              marker=look.marker, markersize=4.5, markerfacecolor="white", markeredgewidth=1.1, label=label)  # fmt: skip
    low, high = curve.quality - curve.std, curve.quality + curve.std
    axes.fill_between(curve.entropy, low, high, color=look.colour, alpha=0.15, linewidth=0)
    plain = _nearest_to_one(rows)["metrics"]
    axes.plot(
        plain[frontier.entropy]["mean"], plain[frontier.quality]["mean"], look.marker, color=look.colour, markersize=6
    )
    return curve


def _nearest_to_one(rows: Sequence[Row]) -> Row:
    return min(rows, key=lambda row: abs(row["temperature"] - 1))


def _share(axes_of: Sequence[Any]) -> None:
    """One range for all panels, so that they can be compared by eye."""
    for get, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
        limits = [getattr(axes, get)() for axes in axes_of]
        for axes in axes_of:
            getattr(axes, put)(min(low for low, _ in limits), max(high for _, high in limits))
