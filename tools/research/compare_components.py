"""Compares numbers of mixture components at equal training time: python tools/research/compare_components.py [--sizes 4,16,64] [--seconds 100]

`--steps-only` measures what a step costs, the sizes in turn in one process, and adds it to the stored result.

For each M it measures the CPU seconds of a step from two short runs, trains the spec for as many steps as the budget holds (one
thread, so CPU seconds are what wall-clock would be on a machine of one's own), and evaluates all runs with tools/eval.py.
Writes tools/results/digits-components.json and .png.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tools" / "research")]

from di4c.command_line import numbers, reporting
from di4c.engine.run_folder import code_commit
from di4c.old_keys import reference_values

SPEC = "tools/specs/digits-components.yaml"
SHORT, LONG = 5, 45


def main() -> None:
    with reporting():
        compare(_arguments())


def compare(arguments: argparse.Namespace) -> None:
    """Measures what is asked for and stores it."""
    if arguments.steps_only:
        add_steps(alternating_steps(arguments.sizes))
        return
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
    folder = run or f"runs/components-{size}-{steps}-trial"
    shutil.rmtree(TOP / folder, ignore_errors=True)
    settings = {"objective.components": size, "train.steps": steps, "train.run": folder}
    settings["train.schedule.warmup"] = min(30, steps)
    command = [sys.executable, "tools/train.py", "--spec", SPEC]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=TOP, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if run is None:
        shutil.rmtree(TOP / folder)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alternating_steps(sizes: list[int], rounds: int = 24, batch: int = 16) -> dict[int, list[float]]:
    """CPU seconds of a step's loss, gradients and update for every size, the sizes in turn; the first two rounds are left out."""
    import torch

    from di4c.config.build import build
    from di4c.config.registry import Registry
    from di4c.config.spec import read_spec
    from di4c.contracts import Draws
    from di4c.engine.allocator import keep_freed_memory
    from di4c.engine.dropout import insert_example_dropout

    keep_freed_memory()  # this, and dropout by example, as in training
    torch.set_num_threads(1)
    parts = {}
    for size in sizes:
        spec = read_spec(SPEC, [f"objective.components={size}"])
        built = build(spec, Registry.default(spec.plugins))
        insert_example_dropout(built.objective).count = batch
        examples = built.data.split("train").batch(torch.arange(batch))
        optimizer = torch.optim.AdamW(built.objective.parameters(), lr=1e-4, fused=True)
        parts[size] = built.objective.train(), examples, optimizer
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for step in range(rounds + 2):
        for size, (objective, examples, optimizer) in parts.items():
            begin = time.process_time()
            objective(examples, Draws(step, count=batch), step)["loss"].mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            found[size].append(time.process_time() - begin)
    return {size: seconds[2:] for size, seconds in found.items()}


def add_steps(seconds: dict[int, list[float]]) -> None:
    """Adds medians, and the median ratio of 64 to 16 components, to the stored result."""
    file = TOP / "tools/results/digits-components.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    ratios = [a / b for a, b in zip(seconds[64], seconds[16], strict=True)]
    found["alternating_steps"] = {
        "median_cpu_seconds": {str(size): median(each) for size, each in seconds.items()},
        "ratio_64_over_16": {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)},
        "rounds": len(ratios), "commit": code_commit(),
    }  # fmt: skip
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["alternating_steps"]))


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
        "rows": rows, "reference_values": reference_values(evaluation),
        **{key: evaluation.get(key) for key in ("settings", "spec", "commit", "versions")},
    }  # fmt: skip
    results = TOP / "tools/results"
    before = json.loads((results / "digits-components.json").read_text(encoding="utf-8"))
    found |= {key: value for key, value in before.items() if key == "alternating_steps"}
    (results / "digits-components.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (results / "digits-components.png").write_bytes(figure(found))


def figure(found: dict) -> bytes:
    """A PNG: the metrics against steps, a line an M."""
    from di4c.evaluation.plots import metrics_figure

    named = [
        row | {"model": f"M = {row['components']}" if "components" in row else row["model"], "mixture_size": None}
        for row in found["rows"] if row["mixture_size"] in (None, "inf")
    ]  # fmt: skip
    return metrics_figure(named, reference_values(found), {})


def _run(size: int) -> str:
    return f"runs/digits-components-{size}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=numbers(1), default=[4, 16, 64])
    parser.add_argument("--seconds", type=float, default=100, help="CPU seconds of training a size")
    parser.add_argument("--steps-only", action="store_true", help="measure a step's cost only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
