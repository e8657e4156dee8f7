"""What a comparison has found, in one sentence."""

import math
from collections.abc import Mapping, Sequence

from di4c.evaluation.rows import REFERENCE, Row, compared, metric_names, number, plain, told_steps

Directions = Mapping[str, bool | None]


def finding(
    rows: Sequence[Row], reference_values: Mapping[str, Mapping[str, float]], higher_is_better: Directions
) -> str:
    """One sentence on the first metric that has a good direction, at the fewest steps; "" where there is none.

    With a student: its value against the teacher's at as many steps, how many steps of the teacher it is as good as, and what
    is left without correlation, so that a student that is worse, or gains nothing by λ, is said to be. Without: how the
    teacher improves with steps. Values that differ by less than their spreads over seeds together count as equal.
    """
    for name in metric_names(rows):
        higher = higher_is_better.get(name)
        if higher is None:
            continue
        teacher, student = _known(rows, REFERENCE, None, name), _known(rows, "student", "inf", name)
        if student.keys() & teacher.keys():
            return _of_student(student, teacher, _known(rows, "student", "product", name), name, higher)
        if teacher:
            return _of_teacher(teacher, reference_values.get(name), name)
    return ""


def _of_student(
    student: Mapping[int, Row], teacher: Mapping[int, Row], product: Mapping[int, Row], name: str, higher: bool
) -> str:
    steps = min(student.keys() & teacher.keys())
    own, its = student[steps], teacher[steps]
    order = compared(own, its, name, higher)
    verdict = {1: "is better than", 0: "is as good as", -1: "is worse than"}[order]
    values = f"{plain(name)} {_value(own, name)} against {_value(its, name)}{_share(own, its, name)}"
    told = f"At {told_steps(steps)} the student {verdict} the teacher: {values}"
    if order > 0:
        told += _reach(own, teacher, name, higher)
    if steps in product:
        told += f"; without correlation (product) it has {_value(product[steps], name)}"
    return told + "."


def _reach(own: Row, teacher: Mapping[int, Row], name: str, higher: bool) -> str:
    """How many steps of the teacher the row is as good as."""
    more = sorted(steps for steps in teacher if steps > own["steps"])
    reached = [steps for steps in more if compared(own, teacher[steps], name, higher) >= 0]
    if not reached:
        return f", but worse than the teacher's {more[0]} steps" if more else ""
    last = reached[-1]
    better = compared(own, teacher[last], name, higher) > 0
    return (
        f", {'better than' if better else 'and as good as'} the teacher's {last} steps ({_value(teacher[last], name)})"
    )


def _of_teacher(teacher: Mapping[int, Row], known: Mapping[str, float] | None, name: str) -> str:
    few, many = min(teacher), max(teacher)
    told = f"The teacher's {plain(name)} is {_value(teacher[few], name)} at {told_steps(few)}"
    if many > few:
        told += f" and {_value(teacher[many], name)} at {told_steps(many)}"
    return told + (f"; real training data have {number(known['mean'])}." if known else ".")


def _known(rows: Sequence[Row], model: str, size: str | None, name: str) -> dict[int, Row]:
    """{steps: row} of a model, where the metric has a finite value."""
    own = [row for row in rows if row["model"] == model and row["mixture_size"] == size and name in row["metrics"]]
    return {row["steps"]: row for row in own if math.isfinite(row["metrics"][name]["mean"])}


def _share(own: Row, its: Row, name: str) -> str:
    """ "(0.46 of it)", where a ratio says something."""
    a, b = own["metrics"][name]["mean"], its["metrics"][name]["mean"]
    return f" ({a / b:.2f} of it)" if a >= 0 < b else ""


def _value(row: Row, name: str) -> str:
    return number(row["metrics"][name]["mean"])
