"""Quality against entropy over temperatures: a curve for each model and number of steps, and whose curves a model reaches.

A few-step model can look good by being less diverse, which temperature alone also gives; at matched entropy it cannot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from di4c.evaluation.rows import REFERENCE, Row, model_label, told_steps


@dataclass(frozen=True)
class Frontier:
    """rows: as of a table, each with its "temperature". reached: see `comparisons`."""

    quality: str
    entropy: str
    higher_is_better: bool
    rows: list[Row]
    reached: list[dict[str, Any]]

    def told(self) -> list[str]:
        """A line for every model and number of steps: the most steps of the teacher whose curve it reaches."""
        lines = []
        for key in dict.fromkeys((c["model"], c["mixture_size"], c["steps"]) for c in self.reached):
            mine = [c for c in self.reached if (c["model"], c["mixture_size"], c["steps"]) == key]
            best = max((c for c in mine if c["reached"]), key=lambda c: c["teacher_steps"], default=None)
            who = f"{model_label(*key[:2])} at {told_steps(key[2])}"
            if best is not None:
                lines.append(f"{who} reaches the teacher at {told_steps(best['teacher_steps'])}")
            elif all(c["reached"] is None for c in mine):
                lines.append(f"{who}: its entropies do not meet the teacher's")
            else:
                lines.append(f"{who} reaches the teacher at no number of steps measured")
        return lines


@dataclass(frozen=True)
class Curve:
    """One model at one number of steps, by rising entropy: entropy, quality and its std over sampling seeds, each [T]."""

    entropy: np.ndarray
    quality: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row], quality: str, entropy: str) -> "Curve":
        values = sorted(
            (row["metrics"][entropy]["mean"], row["metrics"][quality]["mean"], row["metrics"][quality]["std"])
            for row in rows
        )
        return cls(*np.asarray(values, dtype=np.float64).T)


def comparisons(rows: Sequence[Row], quality: str, entropy: str, higher_is_better: bool) -> list[dict[str, Any]]:
    """Every curve but the teacher's against each of the teacher's: does it reach it?

    At the points of the teacher's curve whose entropy the model's curve spans, the model's quality is interpolated between its
    points, linearly in entropy. {"model", "mixture_size", "steps", "teacher_steps", "points", "difference", "worst", "spread", "reached"}:
    difference: model − teacher in the mean over those points, worst: the largest, both positive where the model is worse; spread: of such
    a difference over sampling seeds, √(σ²_model + σ²_teacher), root mean square over the points. reached: difference ≤ spread; None where
    the model's curve spans fewer than two points, or fewer than half of them.
    """
    curves: dict[tuple, list[Row]] = {}
    for row in rows:
        curves.setdefault((row["model"], row["mixture_size"], row["steps"]), []).append(row)
    made = {key: Curve.of(points, quality, entropy) for key, points in curves.items()}
    sign = -1.0 if higher_is_better else 1.0
    return [
        {
            "model": model,
            "mixture_size": size,
            "steps": steps,
            "teacher_steps": other[2],
            **_compared(mine, theirs, sign),
        }
        for (model, size, steps), mine in made.items()
        if model != REFERENCE
        for other, theirs in made.items()
        if other[0] == REFERENCE
    ]


def _compared(mine: Curve, theirs: Curve, sign: float) -> dict[str, Any]:
    inside = (theirs.entropy >= mine.entropy[0]) & (theirs.entropy <= mine.entropy[-1])
    points = int(inside.sum())
    found: dict[str, Any] = {"points": points, "difference": None, "worst": None, "spread": None, "reached": None}
    if points < max(2, len(inside) / 2):
        return found
    at = theirs.entropy[inside]
    difference = sign * (np.interp(at, mine.entropy, mine.quality) - theirs.quality[inside])
    variance = np.interp(at, mine.entropy, mine.std) ** 2 + theirs.std[inside] ** 2
    mean, spread = float(difference.mean()), float(np.sqrt(variance.mean()))
    return found | {"difference": mean, "worst": float(difference.max()), "spread": spread, "reached": mean <= spread}
