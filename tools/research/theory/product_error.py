"""(a) The N-step product model is wrong by order 1/N, neither more nor less (Theorem 1); one step by ε² (Lemma 1)."""

import itertools
import math

from torch import Tensor

from di4c.contracts import ForwardProcess
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.processes.enumeration import noised_law, reverse_matrix, total_variation
from theory.claims import Claim, Line, at_most, within
from theory.drawing import guide, log_axes, series
from theory.spaces import Chain, at, even_times, processes, teacher_of

MIDDLE = 0.5
"""The time from which Lemma 1's step of length ε is taken."""


def measure(small: bool = False) -> Claim:
    """TV(q_0, p_N) of the exact posterior marginals over N even steps, started from q_1 itself."""
    data = Enumerable(positions=3, states=2 if small else 3, spread=1.5)
    steps = [2**k for k in range(7 if small else 8)]
    lengths = [2.0**-k for k in range(2, 8 if small else 12)]
    lines: list[Line] = []
    curves: dict[str, dict] = {}
    for name, process in processes(data.num_states).items():
        curve = measured_curve(process, data, steps)
        curve["one_step"] = [float(step_errors(process, data, MIDDLE, MIDDLE - e)[0].max()) for e in lengths]
        curves[name] = curve
        lines += lines_of(name, curve, steps)
    # Two equal bits, masked, fall in one step with probability 1/N, and then are wrong half the time.
    equal_bits = Enumerable(positions=2, states=2, probs=[0.5, 0.0, 0.0, 0.5])
    bits = measured_curve(processes(2)["absorbing"], equal_bits, steps)["tv"]
    worst = max(abs(2 * n * v - 1) for n, v in zip(steps, bits, strict=True))
    lines.append(at_most("|S| = D = 2, masked, {00, 11}: |2N·TV − 1|", worst, 1e-9, "TV = 1/(2N) in closed form"))
    return Claim(
        "product_error",
        "The product model's error is of order 1/N",
        "Theorem 1: N steps of the best product model (exact posterior marginals) miss the data by a total variation "
        "of order 1/N, from above and from below. Lemma 1: one step of length ε misses the true step by order ε².",
        lines,
        {"steps": steps, "lengths": lengths, "curves": curves, "bits": bits},
    )


def measured_curve(process: ForwardProcess, data: Enumerable, steps: list[int]) -> dict[str, list[float]]:
    """{"tv": TV(q_0, p_N), "sum": Σ_n E_{q_t} TV(q_{s|t}, p_{s|t}), its bound by the triangle inequality}, by N."""
    truth, start = (noised_law(process, data.probs, data.states, t) for t in (0.0, 1.0))
    chain, found = Chain.of(teacher_of(process, data)), {"tv": [], "sum": []}
    for times in map(even_times, steps):
        found["tv"].append(float(total_variation(chain.law(times, start), truth)))
        errors = (step_errors(process, data, t, s) for t, s in itertools.pairwise(times))
        found["sum"].append(sum(float(law @ error) for error, law in errors))
    return found


def step_errors(process: ForwardProcess, data: Enumerable, t: float, s: float) -> tuple[Tensor, Tensor]:
    """(TV(q_{s|t}(·|x_t), ∏_d q^d_{s|t}(·|x_t)), q_t(x_t)) of every x_t that can be reached."""
    teacher = teacher_of(process, data)
    chain = Chain.of(teacher)
    true = reverse_matrix(process, teacher.backbone.posterior(chain.states, at(chain.states, t)), data.states, t, s)
    law = noised_law(process, data.probs, data.states, t)
    return total_variation(chain.step(t, s), true)[law > 0], law[law > 0]


def lines_of(name: str, curve: dict[str, list[float]], steps: list[int]) -> list[Line]:
    slope = math.log2(curve["tv"][-1] / curve["tv"][-2])
    one_step = math.log2(curve["one_step"][-2] / curve["one_step"][-1])
    before, last = (n * v for n, v in zip(steps[-2:], curve["tv"][-2:], strict=True))
    worst = max(v / b for v, b in zip(curve["tv"], curve["sum"], strict=True))
    settles = f"{name}: N·TV settles, ratio N = {steps[-1]} to {steps[-2]}"
    return [
        within(f"{name}: slope of TV against N, N = {steps[-2]} to {steps[-1]}", slope, -1.1, -0.9),
        within(settles, last / before, 0.93, 1.07, f"N·TV → {last:.3f}"),
        at_most(f"{name}: TV / sum of the steps' errors, worst N", worst, 1 + 1e-9),
        within(f"{name}: slope of the step's error against ε", one_step, 1.9, 2.1),
    ]


def draw_steps(axes, data: dict) -> None:
    for k, (name, curve) in enumerate(data["curves"].items()):
        series(axes, data["steps"], curve["tv"], k, name)
    series(axes, data["steps"], data["bits"], 3, "two equal bits: 1/(2N)")
    first = max(curve["tv"][-1] for curve in data["curves"].values()) * data["steps"][-1]
    guide(axes, data["steps"], [1.6 * first / n for n in data["steps"]], "slope −1")
    log_axes(axes, "steps N", "total variation to the data")


def draw_single(axes, data: dict) -> None:
    for k, (name, curve) in enumerate(data["curves"].items()):
        series(axes, data["lengths"], curve["one_step"], k, name)
    last = max(curve["one_step"][-1] for curve in data["curves"].values()) / data["lengths"][-1] ** 2
    guide(axes, data["lengths"], [2.2 * last * e**2 for e in data["lengths"]], "slope 2")
    log_axes(axes, "step length ε", "total variation to the true step")


PANELS = [("N product steps: error of order 1/N", draw_steps), ("One product step: error of order ε²", draw_single)]
