"""(e) Distribution matching: its gradient, its fixed point, and what one component can reach at best."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from di4c.contracts import Draws, Prediction
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.objectives.matching_forms import MaskedForm, MatchingForm, Renoised, form_of, matching_loss
from di4c_plugins.processes.enumeration import (
    bridge,
    dense_probs,
    every_state,
    kl,
    noised_law,
    number_of,
    prior_law,
    product_law,
    total_variation,
)
from di4c_plugins.teachers.enumerable import EnumerableTeacher, PosteriorMarginals
from theory.claims import Claim, Line, at_least, at_most
from theory.drawing import COLOURS, log_axes, series
from theory.mixture_fit import minimise
from theory.spaces import Chain, even_times, processes, teacher_of

TIMES = (0.05, 0.2, 0.6)
MOST = 4.0
"""The largest c(s): it cuts at the first of the times."""
STEP = 1e-5


@dataclass(frozen=True)
class Rows:
    """Every (x_t, λ, x̂_0, s, x_s) of a system, N rows: the numbers of x_t, λ, x̂_0; x_s [N, D], s [N]; q(x_s | x̂_0), or given x_t too."""

    x_t: Tensor
    component: Tensor
    x_0: Tensor
    x_s: Tensor
    s: Tensor
    noise: Tensor


@dataclass(frozen=True)
class System:
    """An exact teacher, and a student of free logits [X, M, D, S], M components at every x_t [X, D] of time t.

    bridge: x_s is drawn given x_t too, at times s·t. blind: the student does not see x_t, and has the same logits at all of them.
    """

    teacher: EnumerableTeacher
    data: Enumerable
    t: float
    components: int
    bridge: bool = False
    blind: bool = False

    @cached_property
    def form(self) -> MatchingForm:
        return form_of(self.teacher.process)

    @cached_property
    def x_t(self) -> tuple[Tensor, Tensor]:
        """(the states that x_t takes [X, D], their law [X])."""
        process, positions = self.teacher.process, self.data.num_positions
        law = prior_law(process, positions) if self.t == 1 else self.noised(self.data.probs, self.t)
        return every_state(process.num_states, positions)[law > 0], law[law > 0]

    @cached_property
    def rows(self) -> Rows:
        """Those that noise can make."""
        every = every_state(self.teacher.process.num_states, self.data.num_positions)
        times = torch.tensor(TIMES).double()
        sizes = len(self.x_t[0]), self.components, len(self.data.states), len(times), len(every)
        a, m, k, n, b = torch.tensor(list(itertools.product(*map(range, sizes)))).unbind(1)
        s = times[n] * (self.t if self.bridge else 1.0)
        noise = self.noise(a, k, every[b], s)
        return Rows(*(v[noise > 0] for v in (a, m, k, every[b], s, noise)))

    def start(self, seed: int = 0) -> Tensor:
        shape = self.components, self.data.num_positions, self.teacher.process.num_states
        return Draws(seed).normal(1 if self.blind else len(self.x_t[0]), *shape)[0]

    def law(self, logits: Tensor) -> Tensor:
        """p^θ_0 over the data's states: [K]."""
        return self.joint(logits).sum(0)

    def joint(self, logits: Tensor) -> Tensor:
        """p(x_t, x̂_0): [X, K]."""
        every = logits.expand(len(self.x_t[0]), -1, -1, -1)
        prediction = Prediction.from_logits(every, self.x_t[0], self.teacher.parameterisation)
        laws = product_law(dense_probs(prediction), self.data.states)  # [X, M, K]
        return self.x_t[1][:, None] * laws.mean(1)

    def divergence(self, logits: Tensor) -> Tensor:
        """Σ_s w(s)·KL(p^θ_s ‖ p^ψ_s), nats."""
        law = self.law(logits)
        return sum(self.weight(s) * kl(self.noised(law, s), self.noised(self.data.probs, s)) for s in TIMES)

    def noised(self, law: Tensor, s: float) -> Tensor:
        """The law of x_s [S^D], x_0's over the data's states being `law`."""
        return noised_law(self.teacher.process, law, self.data.states, s)

    def weight(self, s: float) -> float:
        """w(s), as the form states it."""
        time = torch.tensor([s], dtype=torch.float64)
        c = float(self.form.coefficient(time, torch.ones_like(time), MOST))
        if not isinstance(self.form, MaskedForm):
            return c
        masked = float(self.form.process.schedule.masked(time))
        return c * masked / (1 - masked)

    def loss(self, logits: Tensor) -> Tensor:
        """The expected matching term, summed over the times, against the exact critic. Its gradient counts, not its value."""
        rows, subs = self.rows, self.teacher.parameterisation
        x_t, x_0 = self.x_t[0][rows.x_t], self.data.states[rows.x_0]
        chosen = logits[0 if self.blind else rows.x_t, rows.component]
        student = Prediction.from_logits(chosen, x_t, subs)
        with torch.no_grad():
            sampled = dense_probs(student)[:, 0].gather(-1, x_0[..., None]).prod(1)[:, 0]
            critic = self.critic(logits)(rows.x_s, rows.s)
        weight = self.x_t[1][rows.x_t] / self.components * sampled * rows.noise
        seen = Renoised(
            student, x_0, rows.x_s, rows.s, torch.full_like(rows.s, self.t if self.bridge else 1.0),
            Prediction.from_logits(critic, rows.x_s, subs), self.teacher.predict(rows.x_s, rows.s),
        )  # fmt: skip
        return (weight * matching_loss(self.form, seen, most=MOST, clip=None)).sum()

    def critic(self, logits: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The exact φ: log posterior marginals of the student's own samples given x_s."""
        if not self.bridge:
            return PosteriorMarginals(self.teacher.process, self.data.states, self.law(logits))
        joint, states, number = self.joint(logits), self.data.states, len(self.x_t[0])

        def marginals(x_s: Tensor, s: Tensor) -> Tensor:
            every = torch.meshgrid(*map(torch.arange, (len(x_s), number, len(states))), indexing="ij")
            n, a, k = (index.flatten() for index in every)
            posterior = torch.einsum("nxk,xk->nk", self.noise(a, k, x_s[n], s[n]).view(every[0].shape), joint)
            one_hot = torch.nn.functional.one_hot(states, self.teacher.process.num_states).double()
            found = torch.einsum("nk,kds->nds", posterior / posterior.sum(1, keepdim=True), one_hot)
            return found.clamp_min(1e-300).log()

        return marginals

    def noise(self, a: Tensor, k: Tensor, x_s: Tensor, s: Tensor) -> Tensor:
        """q(x_s | x̂_0), or q(x_s | x_t, x̂_0), of x_t and x̂_0 by their numbers: [N]."""
        process, x_0, x_t = self.teacher.process, self.data.states[k], self.x_t[0][a]
        times, which = torch.unique(s, return_inverse=True)
        if not self.bridge:
            return process.transition(times)[which[:, None], x_0, x_s].prod(1)
        reachable = ((x_t == process.mask_index) | (x_t == x_0)).all(1)
        kernels = torch.stack([bridge(process, self.t, float(time)) for time in times])
        return kernels[which[:, None], x_t, x_0, x_s].prod(1) * reachable


def system(name: str, t: float, components: int = 2, *, bridge: bool = False, blind: bool = False) -> System:
    """A random table over two binary positions, strongly dependent, under one of the processes."""
    data = Enumerable(positions=2, states=2, spread=1.5)
    return System(teacher_of(processes(2)[name], data), data, t, components, bridge, blind)


def gradient_error(one: System, directions: int = 6) -> float:
    """|g·e − ∂_e F|/|∂_e F| over random directions e, g the expected gradient, F = Σ w(s) KL_s by central differences."""
    logits = one.start().requires_grad_()
    (gradient,) = torch.autograd.grad(one.loss(logits), logits)
    found, expected = [], []
    for k in range(directions):
        e = STEP * one.start(1 + k)
        up, down = (one.divergence(logits.detach() + sign * e) for sign in (1, -1))
        expected.append((up - down) / 2)
        found.append((gradient * e).sum())
    found, expected = torch.stack(found), torch.stack(expected)
    return float((found - expected).norm() / expected.norm())


def descend(one: System, steps: int) -> tuple[Tensor, list[float]]:
    """(the law that following the expected gradient ends at [K], Σ w(s) KL_s on the way)."""
    logits = one.start().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.2, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    values = []
    for _ in range(steps):
        logits.grad = torch.autograd.grad(one.loss(logits), logits)[0]
        optimizer.step()
        schedule.step()
        values.append(float(one.divergence(logits.detach())))
    return one.law(logits.detach()), values


def best_product(one: System, restarts: int = 3) -> tuple[float, float]:
    """(the least Σ w(s) KL_s of one component, by L-BFGS on the divergence itself; |g| there, share of |g| at the start)."""
    found = []
    for seed in range(restarts):
        logits = one.start(seed).requires_grad_()
        gradients = [torch.autograd.grad(one.loss(logits), logits)[0].norm()]
        least = minimise([logits], partial(one.divergence, logits), max_iter=200, tolerance_grad=1e-10)
        gradients.append(torch.autograd.grad(one.loss(logits), logits)[0].norm())
        found.append((least, float(gradients[1] / gradients[0])))
    return min(found)


def fixed_point_lines(name: str, steps: int, tolerance: float) -> tuple[list[Line], dict]:
    """Where a mixture ends, and one component at best, x_t = x_1."""
    one = system(name, 1.0, 4)
    (law, values), (best, gradient) = descend(one, steps), best_product(system(name, 1.0, 1, blind=True))
    many = Chain.of(one.teacher).law(even_times(256))[number_of(one.data.states, one.teacher.process.num_states)]
    tv, share = float(total_variation(law, many)), values[-1] / best
    lines = [
        at_most(f"{name}: TV, four components in one step to the teacher in 256", tv, tolerance),
        at_most(f"{name}: Σ w KL where four components end, share of the least of a product", share, tolerance),
        at_least(f"{name}: the least of a product, nats", best, 1e-2, "it cannot have the law"),
        at_most(f"{name}: gradient at the best product, share of that at the start", gradient, 1e-3, "where it ends"),
    ]
    shown = sorted({int(steps ** (k / 14)) for k in range(15)})
    return lines, {"steps": shown, "mixture": [values[n - 1] for n in shown], "best product": best}


def measure(small: bool = False) -> Claim:
    """Gradients by enumeration and by differences; where descent ends."""
    lines, curves = [], {}
    for name, t in itertools.product(processes(2), (1.0, 0.5)):
        error = gradient_error(system(name, t))
        lines.append(at_most(f"{name}, x_t of t = {t:g}: gradient against differences", error, 1e-5, "relative"))
    error = gradient_error(system("absorbing", 1.0, bridge=True))
    lines.append(at_most("absorbing, bridge from t = 1: gradient against differences", error, 1e-5, "relative"))
    for name in ("absorbing", "uniform"):
        found, curves[name] = fixed_point_lines(name, *((200, 0.04) if small else (800, 0.02)))
        lines += found
    return Claim(
        "matching",
        "Distribution matching with λ has the teacher's law as its fixed point",
        "With an exact critic the expected gradient of the matching term is that of Σ w(s) KL(p_s of the student ‖ p_s of the "
        "teacher), w as implemented. Following it, a mixture ends at the teacher's many-step law in one step; a product ends at the "
        "best product, which is another law.",
        lines,
        {"curves": curves},
    )


def draw_descent(axes, data: dict) -> None:
    for k, (name, curve) in enumerate(data["curves"].items()):
        series(axes, curve["steps"], curve["mixture"], k, f"{name}, four components")
        look = {"color": COLOURS[k], "linestyle": ":", "linewidth": 1.1, "label": f"{name}, best product"}
        axes.axhline(curve["best product"], **look)
    log_axes(axes, "steps of descent", "Σ w(s) KL, nats", base=10, legend="upper right")
    axes.set_ylim(top=1e3)  # the legend stands above the curves


PANELS = [("Descent against an exact critic", draw_descent)]
