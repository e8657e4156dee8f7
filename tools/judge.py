"""Stores an evaluation with its verdict: python tools/judge.py REPORT/eval.json --judged METRIC …

At each of --steps the student shall beat its teacher by more than the spread over sampling seeds in the metric named beforehand,
and be no worse than that spread in the other one.
"""

import argparse
import json
from pathlib import Path

from di4c.engine.reporting import reporting


def main() -> None:
    arguments = _arguments()
    with reporting():
        store(arguments)


def store(arguments: argparse.Namespace) -> None:
    """Writes --out and prints a line a number of steps."""
    from di4c.evaluation.table import write_json
    from di4c.evaluation.verdict import verdict

    found = json.loads(arguments.eval.read_text(encoding="utf-8"))
    rows = found.pop("rows")
    outcome = verdict(rows, judged=arguments.judged, guarded=arguments.guarded, steps=arguments.steps)
    more = {"about": arguments.about, "verdict": outcome, "cpu_seconds": dict(arguments.cpu_seconds)}
    if arguments.tried is not None:
        more["tried"] = json.loads(arguments.tried.read_text(encoding="utf-8"))
    write_json(arguments.out, rows, **more, **found)
    for case in outcome["at"]:
        for kind, kept in (("judged", "beats"), ("guarded", "no_worse")):
            said = "holds" if case[kept] else "does not hold"
            print(f"{case['steps']} steps, {outcome[kind]}: lower by {case[kind]['margin']:.5f}, spread {case[kind]['spread']:.5f}: {said}")
    print(arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("eval", type=Path, help="eval.json of tools/eval.py")
    parser.add_argument("--judged", required=True, help="the metric named beforehand, a distance")
    parser.add_argument("--guarded", required=True, help="the metric that must not suffer, a distance")
    parser.add_argument("--steps", type=_numbers, default=[2, 4], metavar="N,N…", help="judged at these numbers of steps (2,4)")
    parser.add_argument("--about", required=True, help="what the file says of itself: what was run, and where")
    parser.add_argument("--cpu-seconds", type=_named, action="append", default=[], metavar="NAME=SECONDS", help="repeatable")
    parser.add_argument("--tried", type=Path, metavar="JSON", help="what was tried before, to be kept in the file")
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _named(text: str) -> tuple[str, float]:
    name, seconds = text.split("=")
    return name, float(seconds)


if __name__ == "__main__":
    main()
