"""Compares numbers of mixture components at equal training time: python tools/research/compare_components.py [--sizes 4,16,64] [--seconds 100]

For each M it measures the CPU seconds of a step from two short runs, trains the spec for as many steps as the budget holds (one
thread, so CPU seconds are what wall-clock would be on a machine of one's own), and evaluates all runs with tools/eval.py.
Writes tools/results/digits-components.json and .png.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from di4c.command_line import numbers, reporting
from di4c.old_keys import reference_values

TOP = Path(__file__).resolve().parents[2]
SPEC = "tools/specs/digits-components.yaml"
SHORT, LONG = 5, 45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=numbers(1), default=[4, 16, 64])
    parser.add_argument("--seconds", type=float, default=100, help="CPU seconds of training a size")
    arguments = parser.parse_args()
    with reporting():
        runs = [trained(size, arguments.seconds) for size in arguments.sizes]
        store(arguments.seconds, runs, _evaluated(arguments.sizes))


def trained(size: int, seconds: float) -> dict:
    """What a step of M = size costs, and how many of them the budget holds, which are trained."""
    step_seconds = (cpu_seconds(size, LONG) - cpu_seconds(size, SHORT)) / (LONG - SHORT)
    steps = max(1, round(seconds / step_seconds))
    used = cpu_seconds(size, steps, run=_run(size))
    found = {"components": size, "step_cpu_seconds": step_seconds, "steps": steps, "run_cpu_seconds": used}
    print(json.dumps(found), flush=True)
    return found


def cpu_seconds(size: int, steps: int, *, run: str | None = None) -> float:
    """CPU seconds of training M = size for `steps` steps, start-up included; in `run`, or in a folder that is removed."""
    folder = run or f"runs/components-{size}-{steps}-trial"
    shutil.rmtree(TOP / folder, ignore_errors=True)
    settings = {"objective.components": size, "train.steps": steps, "train.run": folder}
    settings["train.schedule.warmup"] = min(30, steps)
    before = os.times()
    call("train.py", "--spec", SPEC, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")))
    after = os.times()
    if run is None:
        shutil.rmtree(TOP / folder)
    return after.children_user + after.children_system - before.children_user - before.children_system


def call(tool: str, *arguments: str) -> None:
    """Runs one of the tools silently, on one thread."""
    command, environment = [sys.executable, f"tools/{tool}", *arguments], os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=TOP, env=environment, check=True, stdout=subprocess.DEVNULL)


def _evaluated(sizes: list[int]) -> dict:
    """One evaluation of the teacher and of every size; the first size's run is its `student`."""
    out = TOP / "runs/digits-components-report"
    others = (part for size in sizes[1:] for part in ("--also", f"M{size}={_run(size)}"))
    call("eval.py", "--run", _run(sizes[0]), "--out", str(out), *others)
    return json.loads((out / "eval.json").read_text(encoding="utf-8"))


def store(seconds: float, runs: list[dict], evaluation: dict) -> None:
    """Writes the result file and its figure: the metrics against steps, a line an M."""
    from di4c.evaluation.plots import metrics_figure

    sizes = {"student": runs[0]["components"], **{f"M{run['components']}": run["components"] for run in runs[1:]}}
    rows = [row | ({"components": sizes[row["model"]]} if row["model"] in sizes else {}) for row in evaluation["rows"]]
    by_size = {run["components"]: run["step_cpu_seconds"] for run in runs}
    found = {
        "about": f"M components trained for {seconds:g} CPU seconds each (one thread), N = 16 target samples, λ in the last block only.",
        "seconds": seconds, "runs": runs,
        "step_ratio_64_over_16": by_size[64] / by_size[16] if {16, 64} <= set(by_size) else None,
        "rows": rows, "reference_values": reference_values(evaluation),
        **{key: evaluation.get(key) for key in ("settings", "spec", "commit", "versions")},
    }  # fmt: skip
    file = TOP / "tools/results/digits-components.json"
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    named = [
        row | {"model": f"M = {row['components']}" if "components" in row else row["model"], "mixture_size": None}
        for row in rows if row["mixture_size"] in (None, "inf")
    ]  # fmt: skip
    file.with_suffix(".png").write_bytes(metrics_figure(named, found["reference_values"], {}))


def _run(size: int) -> str:
    return f"runs/digits-components-{size}"


if __name__ == "__main__":
    main()
