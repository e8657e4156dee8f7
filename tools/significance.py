"""Stores an evaluation with its verdict: python tools/significance.py REPORT/eval.json --judged METRIC …

At each of --steps the student shall beat its teacher by more than the spread over sampling seeds in the metric named beforehand,
and be no worse than that spread in the other one.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from di4c.command_line import amount_argument, numbers, path_argument, reporting
from di4c.errors import DataError
from di4c.files import read_json


def main() -> None:
    arguments = _arguments()
    with reporting():
        store(arguments)


def store(arguments: argparse.Namespace) -> None:
    """Writes --out and prints a line a number of steps."""
    from di4c.evaluation.table import write_json

    stored = read_json(arguments.eval, {"rows": list})
    rows = stored.pop("rows")
    outcome = verdict(rows, judged=arguments.judged, guarded=arguments.guarded, steps=arguments.steps)
    more = {"about": arguments.about, "verdict": outcome, "cpu_seconds": dict(arguments.cpu_seconds)}
    if arguments.seconds is not None:
        more["seconds"] = read_json(arguments.seconds, {})
    if arguments.tried is not None:
        more["tried"] = read_json(arguments.tried, {})
    write_json(arguments.out, rows, **more, **stored)
    for case in outcome["at"]:
        for kind, kept in (("judged", "beats"), ("guarded", "no_worse")):
            said, found = "holds" if case[kept] else "does not hold", case[kind]
            lower = f"lower by {found['margin']:.5f}, spread {found['spread']:.5f}"
            print(f"{case['steps']} steps, {outcome[kind]}: {lower}: {said}")
    print(arguments.out)


def verdict(rows: Sequence[dict[str, Any]], *, judged: str, guarded: str, steps: Sequence[int]) -> dict[str, Any]:
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


def margin(rows: Sequence[dict[str, Any]], metric: str, steps: int) -> dict[str, float]:
    """{"teacher", "student": means, "margin", "spread"} of a metric at a number of steps."""
    teacher, student = (_values(rows, key, metric, steps) for key in (("teacher", None), ("student", "inf")))
    return {
        "teacher": teacher["mean"],
        "student": student["mean"],
        "margin": teacher["mean"] - student["mean"],
        "spread": math.hypot(teacher["std"], student["std"]),
    }


def _values(rows: Sequence[dict[str, Any]], key: tuple, metric: str, steps: int) -> Mapping[str, float]:
    for row in rows:
        try:
            if (row["model"], row["mixture_size"]) == key and row["steps"] == steps and metric in row["metrics"]:
                return {name: float(row["metrics"][metric][name]) for name in ("mean", "std")}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a row is none of tools/eval.py's ({error!r}): {str(row)[:80]}") from error
    told = "among the results; evaluate with that metric and number of steps"
    raise DataError(f"no {metric} of the {key[0]} at {steps} steps {told}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("eval", type=path_argument, help="eval.json of tools/eval.py")
    parser.add_argument("--judged", required=True, help="the metric named beforehand, a distance")
    parser.add_argument("--guarded", required=True, help="the metric that must not suffer, a distance")
    parser.add_argument(
        "--steps", type=numbers(1), default=[2, 4], metavar="N,N…", help="judged at these numbers of steps (2,4)"
    )
    parser.add_argument("--about", required=True, help="what the file says of itself: what was run, and where")
    parser.add_argument(
        "--cpu-seconds", type=_named, action="append", default=[], metavar="NAME=SECONDS", help="repeatable"
    )
    parser.add_argument(
        "--seconds",
        type=path_argument,
        metavar="JSON",
        help="chain.json of tools/chain.py: wall-clock and CPU seconds, to be kept",
    )
    parser.add_argument(
        "--tried", type=path_argument, metavar="JSON", help="what was tried before, to be kept in the file"
    )
    parser.add_argument("--out", required=True, type=path_argument, help="the file to write")
    return parser.parse_args()


def _named(text: str) -> tuple[str, float]:
    name, equals, seconds = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=SECONDS, found {text!r}")
    return name, amount_argument(seconds)


if __name__ == "__main__":
    main()
