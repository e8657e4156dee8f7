"""Lines and axes as all panels draw them."""

from collections.abc import Sequence
from typing import Any

from di4c.evaluation.style import FAINT, INK, quiet_axes

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
MARKERS = "os^DvPX"


def series(
    axes: Any,
    x: Sequence[float],
    y: Sequence[float],
    number: int,
    label: str,
    error: Sequence[float] | None = None,
    line: str = "-",
) -> None:
    """One line with markers, and bars of `error` to either side."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    points = {"marker": marker, "markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    look = {"color": colour, "linestyle": line, "linewidth": 1.7, "label": label, **points}
    if error is None:
        axes.plot(x, y, **look)
    else:
        axes.errorbar(x, y, yerr=error, capsize=2.5, elinewidth=1.0, **look)


def guide(axes: Any, x: Sequence[float], y: Sequence[float], label: str) -> None:
    """A thin dotted line of a known slope."""
    axes.plot(x, y, color="#9aa0ab", linestyle=":", linewidth=1.2, label=label)


def log_axes(
    axes: Any, x_label: str, y_label: str, base: int = 2, ticks: Sequence[float] | None = None, legend: str = "best"
) -> None:
    axes.set_xscale("log", base=base)
    if ticks is not None:
        axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
        axes.minorticks_off()
    axes.set_yscale("log")
    labels(axes, x_label, y_label, legend)


def labels(axes: Any, x_label: str, y_label: str, legend: str = "best") -> None:
    """Labels, quiet axes and, where there is something to tell apart, a legend at that place."""
    axes.set_xlabel(x_label, fontsize=9.5, color=FAINT)
    axes.set_ylabel(y_label, fontsize=9.5, color=FAINT)
    quiet_axes(axes)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc=legend)
