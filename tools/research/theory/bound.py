"""(b) Theorem 2: the losses bound the distance of the student's one step to the teacher's many."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import ForwardProcess, Parameterisation, Prediction, Raw
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.enumeration import every_state, kl, step_matrix, total_variation
from theory.claims import Claim, Line, at_least, at_most
from theory.drawing import MARKERS, log_axes
from theory.spaces import processes

KINDS = ("mixture", "close", "tilted")
"""Students: random mixtures of products; laws close to what the losses ask for; the teacher, half its mass tilted."""

FACTOR = 2**-0.5


def measure(small: bool = False) -> Claim:
    """The ratio TV(r_0, p^θ_{0|T}∘r_T) / ( [ √L_distil + Σ_n √L_consis,n ]/√2 ) over random instances."""
    number = 60 if small else 600
    generator = torch.Generator().manual_seed(0)
    found = [instance(KINDS[k % 3], generator) for k in range(number)]
    ratios = [item["tv"] / item["bound"] for item in found]
    lines: list[Line] = []
    for kind in KINDS:
        own = [r for r, item in zip(ratios, found, strict=True) if item["kind"] == kind]
        lines.append(at_most(f"{kind} students: largest TV / bound over {len(own)} instances", max(own), 1 + 1e-9))
    lines.append(at_least("largest ratio of all: the bound is nearly reached", max(ratios), 0.7 if small else 0.9))
    return Claim(
        "bound",
        "The losses bound the student's error",
        "Theorem 2: TV(r₀, p^θ∘r_T) ≤ (1/√2)·[ √L_distil + Σₙ √L_consis,n ], for any teacher, student and start, with "
        "exact relative entropies and the teacher's own marginals r.",
        lines,
        {"instances": found},
    )


def instance(kind: str, generator: torch.Generator) -> dict:
    """One random instance: {"kind", "steps": N, "tv", "bound"}; spaces, times, teacher, student and r_T are random."""
    states, positions, number = (int(torch.randint(a, b, (), generator=generator)) for a, b in ((2, 4), (2, 4), (1, 5)))
    number = 1 if kind == "tilted" else number
    process = list(processes(states).values())[int(torch.randint(3, (), generator=generator))]
    times = [*torch.rand(number - 1, generator=generator).double().sort().values.tolist(), 1.0]  # t_1 < … < t_N = 1
    spread = 3.0 * float(torch.rand((), generator=generator))
    at_random = RandomSteps(process, every_state(process.num_states, positions), spread, generator)
    steps = [at_random.step(1, t, s) for t, s in zip(times, [0.0, *times[:-1]], strict=True)]
    start = (2.0 * torch.randn(len(at_random.x), generator=generator, dtype=torch.float64)).softmax(0)
    if kind == "mixture":
        components = int(torch.randint(1, 5, (), generator=generator))
        students = [at_random.step(components, t, 0.0) for t in times]
    else:
        students = student_laws(kind, steps, generator)
    tv, bound = both_sides(steps, students, start)
    return {"kind": kind, "steps": number, "tv": tv, "bound": bound}


def both_sides(steps: list[Tensor], students: list[Tensor], start: Tensor) -> tuple[float, float]:
    """(TV(r_0, p^θ_{0|T}∘r_T), the bound), from the teacher's steps p^ψ_{n−1|n}, the students p^θ_{0|t_n} and r_N.

    L_distil = E_{r_1} KL(p^ψ_{0|t_1} ‖ p^θ_{0|t_1})
    L_consis,n = E_{r_n} KL(p^θ_{0|t_{n−1}}∘p^ψ_{n−1|n} ‖ p^θ_{0|t_n}),  n = 2, …, N
    """
    law, total = start, 0.0
    for n in range(len(steps) - 1, 0, -1):
        total += expected_kl(law, steps[n] @ students[n - 1], students[n]) ** 0.5
        law = law @ steps[n]
    total += expected_kl(law, steps[0], students[0]) ** 0.5
    return float(total_variation(law @ steps[0], start @ students[-1])), FACTOR * total


def expected_kl(law: Tensor, target: Tensor, student: Tensor) -> float:
    """E_{x ~ law} KL(target(·|x) ‖ student(·|x)), rounding kept from making it negative."""
    return float((law * kl(target, student)).sum().clamp_min(0))


@dataclass(frozen=True)
class RandomSteps:
    """Steps by random mixtures of products at every x [S^D, D], their logits normal with standard deviation `spread`."""

    process: ForwardProcess
    x: Tensor
    spread: float
    generator: torch.Generator

    def step(self, components: int, t: float, s: float) -> Tensor:
        """p_{s|t}(x_s | x_t): [S^D, S^D]."""
        shape = len(self.x), components, self.x.shape[1], self.process.num_states
        logits = self.spread * torch.randn(shape, generator=self.generator, dtype=torch.float64)
        parameterisation: Parameterisation = Raw() if self.process.mask_index is None else Subs(self.process)
        return step_matrix(self.process, Prediction.from_logits(logits, self.x, parameterisation), t, s)


def student_laws(kind: str, steps: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """p^θ_{0|t_n}(x_0 | x_t), n = 1, …, N: matrices [S^D, S^D], near what the losses ask for. Any is a mixture of products
    (Proposition 1)."""
    size = 10.0 ** (-3 * float(torch.rand((), generator=generator)))
    laws: list[Tensor] = []
    for step in steps:
        asked = step if not laws else step @ laws[-1]
        laws.append(tilted(asked, 0.5 * size) if kind == "tilted" else noisy(asked, size, generator))
    return laws


def noisy(law: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """The rows multiplied by random factors e^{size·g}."""
    factor = (size * torch.randn(law.shape, generator=generator, dtype=torch.float64)).exp()
    return law * factor / (law * factor).sum(1, keepdim=True)


def tilted(law: Tensor, size: float) -> Tensor:
    """The rows, half of their mass (about) made larger by 1 + size, the other half smaller: where Pinsker is tight."""
    order = law.argsort(1, descending=True)
    # Alternating by size keeps the two halves near in mass.
    sign = torch.where(torch.arange(law.shape[1]) % 4 % 3 == 0, 1.0, -1.0).double().expand_as(law)
    factor = torch.ones_like(law).scatter(1, order, 1 + size * sign)
    return law * factor / (law * factor).sum(1, keepdim=True)


def draw_ratio(axes, data: dict) -> None:
    for k, kind in enumerate(KINDS):
        own = [item for item in data["instances"] if item["kind"] == kind]
        bounds, distances = ([item[key] for item in own] for key in ("bound", "tv"))
        look = {"color": ("#0072B2", "#D55E00", "#009E73")[k], "marker": MARKERS[k], "label": f"{kind} students"}
        axes.scatter(bounds, distances, s=13, alpha=0.65, linewidths=0, **look)
    low = min(item["tv"] for item in data["instances"])
    high = max(item["bound"] for item in data["instances"])
    axes.plot([low, high], [low, high], color="#2b2f38", linewidth=1.1, label="TV = bound")
    log_axes(axes, "bound of Theorem 2", "total variation, teacher to student", base=10)


PANELS = [("Theorem 2 on random instances", draw_ratio)]
