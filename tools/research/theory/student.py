"""(d) A student that the project's own training distils from the exact teacher: one step against the teacher's many."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean

import torch

import di4c
from di4c.evaluation.loaded import LoadedModel
from di4c_plugins.processes.enumeration import noised_law, total_variation
from theory.claims import Claim, at_least, at_most
from theory.drawing import COLOURS, labels, series
from theory.spaces import Chain, Predict, even_times, every_component

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "tools/specs/enumerable-student.yaml"
STEPS = (1, 2, 4, 8, 16)
SMALL = [
    "train.steps=60",
    "train.schedule.warmup=10",
    "latent.atoms=8",
    "objective.targets=8",
    "data.positions=2",
    "data.examples=512",
]


def measure(small: bool = False) -> Claim:
    """Exact total variation to the data of teacher, student and product of the student's marginals, by steps, seeds."""
    seeds, overrides = ((0,), SMALL) if small else ((0, 1, 2), [])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        students = pool.map(lambda seed: trained(Path(folder) / f"student-{seed}", seed, overrides), seeds)
        runs = [measured(di4c.load(student, device="cpu")) for student in students]
    ratio = 0.9 if small else 0.5
    teacher = runs[0]["teacher"]
    worst = max(run["student"][0] for run in runs)
    product = min(run["product"][0] for run in runs)
    title, told = "product of the student's marginals / teacher, one step: least", "no correlation, no gain"
    lines = [
        at_most(f"student, one step / teacher, one step: worst of {len(runs)} seeds", worst / teacher[0], ratio),
        at_least(title, product / teacher[0], 0.95, told),
    ]
    if not small:
        lines.append(at_most("student, one step / teacher, two steps: worst", worst / teacher[1], 1.0))
    return Claim(
        "student",
        "A distilled student beats its teacher in one step",
        "The project's own training distils the exact teacher of a table over 3⁴ states into 16 components. Total "
        "variation to the table is computed by enumeration of every state and every λ, not sampled.",
        lines,
        {"steps": list(STEPS), "runs": runs},
    )


def trained(run: Path, seed: int, overrides: list[str]) -> Path:
    """The run of tools/train.py on the spec, in a process of its own."""
    settings = (f"train.run={run}", f"seed={seed}", *overrides)
    changes = [word for setting in settings for word in ("--set", setting)]
    command, environment = (
        [sys.executable, ROOT / "tools/train.py", "--spec", SPEC],
        os.environ | {"OMP_NUM_THREADS": "1"},
    )
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([*command, *changes], env=environment, **streams)
    if done.returncode:
        raise RuntimeError(f"training failed ({done.returncode}):\n{done.stdout[-3000:]}")
    return run


@torch.no_grad()
def measured(student: LoadedModel) -> dict[str, list[float]]:
    """{"teacher", "student", "product": TV(q_0, model) by STEPS}, by enumeration of every x_t and every λ."""
    data, process, teacher = student.data, student.process, student.teacher()._teacher
    truth, mixture = noised_law(process, data.probs, data.states, 0.0), every_component(student.student, student.latent)
    models: dict[str, Predict] = {
        "teacher": teacher.predict,
        "student": mixture,
        "product": lambda x, t: mixture(x, t).average(),
    }
    chains = {name: Chain(process, predict, data.num_positions) for name, predict in models.items()}
    return {
        name: [float(total_variation(chain.law(even_times(n)), truth)) for n in STEPS] for name, chain in chains.items()
    }


def draw_student(axes, data: dict) -> None:
    names = {
        "teacher": "teacher, exact",
        "student": "distilled student",
        "product": "product of the student's marginals",
    }
    for k, (name, label) in zip((6, 0, 3), names.items(), strict=True):
        values = [*zip(*(run[name] for run in data["runs"]), strict=True)]  # of each number of steps, by seeds
        low, mean, high = ([of(v) for v in values] for of in (min, fmean, max))
        series(axes, data["steps"], mean, k, label, line=":" if name == "product" else "-")
        axes.fill_between(data["steps"], low, high, color=COLOURS[k], alpha=0.18, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(data["steps"], [str(n) for n in data["steps"]])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    labels(axes, "steps", "total variation to the data")


PANELS = [("Distilled by the project's own training", draw_student)]
