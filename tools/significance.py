"""Stores an evaluation with its verdict: python tools/significance.py REPORT/eval.json --judged METRIC …

At each of --steps the student shall beat its teacher by more than the spread over sampling seeds in the metric named beforehand,
and be no worse than that spread in the other one. For example:
python tools/significance.py report/eval.json --judged lagged_pair_tv --guarded ngram_tv --about "My texts." --out verdict.json
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
    """Writes --out and prints a line a number of steps. Raises DataError as `verdict`, and for an evaluation of one sampling seed."""
    from di4c.evaluation.rows import told_steps
    from di4c.evaluation.table import write_json

    stored = read_json(arguments.eval, {"rows": list})
    if (stored.get("settings") or {}).get("seeds") == 1:
        raise DataError(
            f"{arguments.eval}: has one sampling seed, so no spread to hold a gain against; evaluate with --seeds 2 or more"
        )
    rows = stored.pop("rows")
    judged, guarded = arguments.judged, arguments.guarded
    directions = stored.get("higher_is_better") or dict.fromkeys(
        (judged, guarded), False
    )  # of before it was stored: distances
    outcome = verdict(rows, directions, judged=judged, guarded=guarded, steps=arguments.steps)
    more = {"about": arguments.about, "verdict": outcome, "cpu_seconds": dict(arguments.cpu_seconds)}
    if arguments.seconds is not None:
        more["seconds"] = read_json(arguments.seconds, {})
    if arguments.tried is not None:
        more["tried"] = read_json(arguments.tried, {})
    write_json(arguments.out, rows, **more, **stored)
    for case in outcome["at"]:
        for kind, kept in (("judged", "beats"), ("guarded", "no_worse")):
            said, found = "holds" if case[kept] else "does not hold", case[kind]
            better = f"better by {found['margin']:.5f}, spread {found['spread']:.5f}"
            print(f"{told_steps(case['steps'])}, {outcome[kind]}: {better}: {said}")
    print(arguments.out)


def verdict(
    rows: Sequence[dict[str, Any]],
    higher_is_better: Mapping[str, bool | None],
    *,
    judged: str,
    guarded: str,
    steps: Sequence[int],
) -> dict[str, Any]:
    """At each number of steps: is the student better in `judged` by more than the spread, and not worse in `guarded` by more?

    margin: by how much the student's mean over sampling seeds is better than the teacher's (teacher − student where lower is better);
    spread: the standard deviation of that difference between two seeds, √(σ²_teacher + σ²_student).
    {"judged", "guarded", "holds", "at": [{"steps", "judged": margin, "guarded": margin, "beats", "no_worse"}]}.
    Raises DataError where a row or metric is missing, or which way a metric is good is not known.
    """
    at = []
    for number in steps:
        wins, guards = (margin(rows, name, number, higher_is_better) for name in (judged, guarded))
        beats, no_worse = wins["margin"] > wins["spread"], guards["margin"] >= -guards["spread"]
        at.append({"steps": number, "judged": wins, "guarded": guards, "beats": beats, "no_worse": no_worse})
    holds = all(case["beats"] and case["no_worse"] for case in at)
    return {"judged": judged, "guarded": guarded, "holds": holds, "at": at}


def margin(
    rows: Sequence[dict[str, Any]], metric: str, steps: int, higher_is_better: Mapping[str, bool | None]
) -> dict[str, float]:
    """{"teacher", "student": means, "margin", "spread"} of a metric at a number of steps."""
    from di4c.evaluation.rows import sign_of_worse

    teacher, student = (_values(rows, key, metric, steps) for key in (("teacher", None), ("student", "inf")))
    sign = sign_of_worse(higher_is_better, metric, "--judged, --guarded")
    return {
        "teacher": teacher["mean"],
        "student": student["mean"],
        "margin": sign * (teacher["mean"] - student["mean"]),
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
    parser.add_argument("--judged", required=True, help="the metric named beforehand")
    parser.add_argument("--guarded", required=True, help="the metric that must not suffer")
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
