"""A row of an evaluation, and how its models, metrics and values are called."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from di4c.errors import DataError

Row = dict[str, Any]
"""{"model", "steps", "mixture_size", "nfe", "latency_ms_per_sample", "metrics": {name: {"mean", "std"}}}"""

SPELT = {"tv": "TV", "nll": "NLL", "bleu": "BLEU", "frechet": "Fréchet"}
"""Words of metrics' names that people write otherwise."""

REFERENCE = "teacher"
"""The model whose value at the same number of steps the others are divided by."""


def ratio(rows: Sequence[Row], row: Row, metric: str) -> float | None:
    """The row's mean divided by the teacher's at the same number of steps; None where that says nothing."""
    teacher = _teacher_beside(rows, row)
    reference = 0.0 if teacher is None else teacher["metrics"].get(metric, {"mean": 0.0})["mean"]
    return row["metrics"][metric]["mean"] / reference if reference else None


def is_better(rows: Sequence[Row], row: Row, metric: str, higher_is_better: bool | None) -> bool:
    """Whether the row is better than the teacher at the same number of steps, as `compared` tells it."""
    teacher = _teacher_beside(rows, row)
    known = higher_is_better is not None and teacher is not None and metric in teacher["metrics"]
    return known and compared(row, teacher, metric, bool(higher_is_better)) > 0


def compared(one: Row, other: Row, name: str, higher: bool) -> int:
    """1: `one` is better, −1: worse, 0: within half a percent or the spreads of both over seeds."""
    a, b = one["metrics"][name], other["metrics"][name]
    if not abs(a["mean"] - b["mean"]) > max(a["std"] + b["std"], 0.005 * abs(b["mean"])):
        return 0
    return 1 if (a["mean"] > b["mean"]) == higher else -1


def _teacher_beside(rows: Sequence[Row], row: Row) -> Row | None:
    """The teacher's row at as many steps; None for the teacher itself, and without one."""
    if row["model"] == REFERENCE:
        return None
    return next((other for other in rows if other["model"] == REFERENCE and other["steps"] == row["steps"]), None)


def sign_of_worse(higher_is_better: Mapping[str, bool | None], name: str, where: str) -> float:
    """+1 where a higher value of the metric is worse, −1 where it is better. Raises DataError where neither is known."""
    if higher_is_better.get(name) is None:
        known = ", ".join(metric for metric, way in higher_is_better.items() if way is not None)
        raise DataError(
            f"{where}: which way {name!r} is good is not known, so it judges nothing; known of: {known or 'none'}"
        )
    return -1.0 if higher_is_better[name] else 1.0


def metric_names(rows: Iterable[Row]) -> list[str]:
    """All metrics of the rows, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row["metrics"]))


def model_label(model: str, mixture_size: Any) -> str:
    """How a model is named in tables and plots, e.g. "student, 4 atoms"."""
    if mixture_size in (None, "inf"):
        return model
    return (
        f"{model}, product" if mixture_size == "product" else f"{model}, {mixture_size} atom{'s' * (mixture_size > 1)}"
    )


def plain(name: str) -> str:
    """A metric's name for people: pair_tv is pair TV."""
    return " ".join(SPELT.get(word, word) for word in name.split("_"))


def number(value: float, like: float | None = None) -> str:
    """Three or four significant digits, without an exponent; as many decimals as `like` would have, if given."""
    size = abs(value if like is None else like)
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 0.1 else 4
    return f"{value:.{decimals}f}"


def told_steps(steps: int) -> str:
    """As people say it: 1 step, 4 steps."""
    return "1 step" if steps == 1 else f"{steps} steps"


def mean_calls(rows: float, samples: int) -> float:
    """Rows a sample, as an int where it is whole; 0 without samples."""
    mean = rows / max(samples, 1)
    return int(mean) if mean == int(mean) else mean
