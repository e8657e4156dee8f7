"""Whether a student beats its teacher by a metric named beforehand, against the spread over sampling seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from di4c.errors import DataError
from di4c.evaluation.table import REFERENCE, Row


def verdict(rows: Sequence[Row], *, judged: str, guarded: str, steps: Sequence[int]) -> dict[str, Any]:
    """At each number of steps: is the student lower in `judged` by more than the spread, and not higher in `guarded` by more?

    Both metrics are distances, lower is better. margin = teacher − student (means over sampling seeds); spread is the standard
    deviation of that difference between two seeds, √(σ²_teacher + σ²_student).
    {"judged", "guarded", "holds", "at": [{"steps", "judged": margin, "guarded": margin, "beats", "no_worse"}]}.
    Raises DataError where a row or metric is missing.
    """
    at = []
    for number in steps:
        wins, guards = (margin(rows, name, number) for name in (judged, guarded))
        beats, no_worse = wins["margin"] > wins["spread"], guards["margin"] >= -guards["spread"]
        at.append({"steps": number, "judged": wins, "guarded": guards, "beats": beats, "no_worse": no_worse})
    holds = all(case["beats"] and case["no_worse"] for case in at)
    return {"judged": judged, "guarded": guarded, "holds": holds, "at": at}


def margin(rows: Sequence[Row], metric: str, steps: int) -> dict[str, float]:
    """{"teacher", "student": means, "margin", "spread"} of a metric at a number of steps."""
    teacher, student = (_values(rows, key, metric, steps) for key in ((REFERENCE, None), ("student", "inf")))
    return {
        "teacher": teacher["mean"],
        "student": student["mean"],
        "margin": teacher["mean"] - student["mean"],
        "spread": math.hypot(teacher["std"], student["std"]),
    }


def _values(rows: Sequence[Row], key: tuple, metric: str, steps: int) -> Mapping[str, float]:
    for row in rows:
        if (row["model"], row["mixture_size"]) == key and row["steps"] == steps and metric in row["metrics"]:
            return row["metrics"][metric]
    raise DataError(f"no {metric} of the {key[0]} at {steps} steps among the results; evaluate with that metric and number of steps")
