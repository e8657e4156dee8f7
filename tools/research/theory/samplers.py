"""(f) What the registered samplers draw, against the exact law of what they say they draw."""

import numpy as np
import torch

from di4c.contracts import Draws
from di4c.evaluation.style import INK
from di4c_plugins.processes.enumeration import number_of
from theory.claims import Claim, Line
from theory.drawing import labels
from theory.goodness_of_fit import LEVEL, SIMULATIONS, STAGES, Verdict, judged
from theory.sampler_cases import Case, every_case


def measure(small: bool = False) -> Claim:
    """A verdict a case; see goodness_of_fit.py for the rule."""
    number = 3000 if small else 20_000
    found = {case.name: judge(case, number) for case in every_case()}
    return Claim(
        "samplers",
        "Samplers draw what they say",
        f"Every registered sampler against the exact law of its samples, {number} samples a test. p-values are exact "
        f"(Barnard's test, {SIMULATIONS} simulations of the likelihood ratio); a sampler fails if {STAGES} fresh "
        f"sets of samples all have p ≤ {LEVEL}, which a correct one does less than once in 10⁹ tests.",
        [line_of(name, verdict) for name, verdict in found.items()],
        {"number": number} | {key: {n: getattr(v, key) for n, v in found.items()} for key in ("p_values", "tv")},
    )


def line_of(name: str, verdict: Verdict) -> Line:
    note = f"TV of the frequencies {verdict.tv:.4f}"
    if verdict.impossible:
        note += f", {verdict.impossible} impossible samples"
    if len(verdict.p_values) > 1:
        note += ", after p = " + ", ".join(f"{p:.4f}" for p in verdict.p_values[:-1])
    return Line(f"{name}: p-value", verdict.p_values[-1], f"above {LEVEL:g}", verdict.ok, note)


def judge(case: Case, number: int) -> Verdict:
    """The verdict on a case with `number` samples a stage."""
    law = case.law().clamp_min(0).numpy()
    states = case.teacher.process.num_states

    def counts(stage: int) -> np.ndarray:
        with torch.no_grad():
            x_0 = case.samples(Draws(17, count=number, path=(case.name, stage)))
        return number_of(x_0, states).bincount(minlength=len(law)).numpy()

    return judged(counts, law)


def draw_p_values(axes, data: dict) -> None:
    names = list(data["p_values"])
    values = [max(data["p_values"][name][-1], 1e-4) for name in names]
    axes.axvline(LEVEL, color="#D55E00", linestyle="--", linewidth=1.2)
    axes.scatter(values, range(len(names)), color="#0072B2", s=26, zorder=3)
    for place, name in enumerate(names):  # inside, so that no column of panels is moved by long names
        axes.text(8e-8, place, _short(name), fontsize=6.5, va="center", color=INK)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(6e-8, 1.6)
    axes.set_xticks([LEVEL, 0.01, 0.1, 1])
    axes.minorticks_off()
    labels(axes, f"p-value; dashed: below {LEVEL:g} three times fails", "")


def _short(name: str) -> str:
    shorter = name.replace("discretised ", "").replace("predictor-corrector", "pred.-corr.")
    return shorter.replace("student then teacher", "then teacher")


PANELS = [("Samplers against their exact laws", draw_p_values)]
