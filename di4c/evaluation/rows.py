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
    for other in rows:
        if other["model"] == REFERENCE != row["model"] and other["steps"] == row["steps"]:
            reference = other["metrics"].get(metric, {"mean": 0.0})["mean"]
            return row["metrics"][metric]["mean"] / reference if reference else None
    return None


def is_better(share: float, higher_is_better: bool | None) -> bool:
    """Whether a ratio to the teacher is an improvement of at least half a percent."""
    return higher_is_better is not None and (share > 1.005 if higher_is_better else share < 0.995)


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
