"""Compares numbers of mixture components at equal training time: python tools/compare_components.py [--sizes 4,16,64] [--seconds 100]

For each M it measures the CPU seconds of a step from two short runs, trains the spec for as many steps as the budget holds (one
thread, so CPU seconds are what wall-clock would be on a machine of one's own), and evaluates all runs with tools/eval.py.
Writes tools/results/digits-components.json and .png.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP), str(TOP / "tools")]
SPEC = "tools/specs/digits-components.yaml"
SHORT, LONG = 5, 45


def main() -> None:
    arguments = _arguments()
    runs = {}
    for size in arguments.sizes:
        step_seconds = (cpu_seconds(size, LONG) - cpu_seconds(size, SHORT)) / (LONG - SHORT)
        steps = max(1, round(arguments.seconds / step_seconds))
        used = cpu_seconds(size, steps, run=_run(size))
        runs[size] = {"components": size, "step_cpu_seconds": step_seconds, "steps": steps, "run_cpu_seconds": used}
        print(json.dumps(runs[size]), flush=True)
    store(arguments.seconds, list(runs.values()), _evaluated(arguments.sizes))


def cpu_seconds(size: int, steps: int, *, run: str | None = None) -> float:
    """CPU seconds of training M = size for `steps` steps, start-up included; in `run`, or in a folder that is removed."""
    import shutil

    folder = run or f"runs/components-{size}-{steps}-trial"
    shutil.rmtree(TOP / folder, ignore_errors=True)
    settings = {"objective.components": size, "train.steps": steps, "train.run": folder, "train.schedule.warmup": min(30, steps)}
    command = [sys.executable, "tools/train.py", "--spec", SPEC]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=TOP, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if run is None:
        shutil.rmtree(TOP / folder)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _evaluated(sizes: list[int]) -> dict:
    """One evaluation of the teacher and of every size; the first size's run is its `student`."""
    out = TOP / "runs/digits-components-report"
    command = [sys.executable, "tools/eval.py", "--run", _run(sizes[0]), "--out", str(out)]
    command += [part for size in sizes[1:] for part in ("--also", f"M{size}={_run(size)}")]
    subprocess.run(command, cwd=TOP, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "eval.json").read_text(encoding="utf-8"))


def store(seconds: float, runs: list[dict], evaluation: dict) -> None:
    """Writes the result file and its figure."""
    sizes = {"student": runs[0]["components"], **{f"M{run['components']}": run["components"] for run in runs[1:]}}
    rows = [row | ({"components": sizes[row["model"]]} if row["model"] in sizes else {}) for row in evaluation["rows"]]
    by_size = {run["components"]: run["step_cpu_seconds"] for run in runs}
    found = {
        "about": f"M components trained for {seconds:g} CPU seconds each (one thread), N = 16 target samples, λ in the last block only.",
        "seconds": seconds, "runs": runs,
        "step_ratio_64_over_16": by_size[64] / by_size[16] if {16, 64} <= set(by_size) else None,
        "rows": rows, **{key: evaluation.get(key) for key in ("floors", "settings", "spec", "commit", "versions")},
    }  # fmt: skip
    results = TOP / "tools/results"
    (results / "digits-components.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (results / "digits-components.png").write_bytes(figure(found))


def figure(found: dict) -> bytes:
    """A PNG: the metrics against steps, a line an M."""
    from di4c.evaluation.plots import metrics_figure

    named = [
        row | {"model": f"M = {row['components']}" if "components" in row else row["model"], "mixture_size": None}
        for row in found["rows"] if row["mixture_size"] in (None, "inf")
    ]  # fmt: skip
    return metrics_figure(named, found["floors"], {})


def _run(size: int) -> str:
    return f"runs/digits-components-{size}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=[4, 16, 64])
    parser.add_argument("--seconds", type=float, default=100, help="CPU seconds of training a size")
    return parser.parse_args()


if __name__ == "__main__":
    main()
