"""(e) Bias and variance of every registered estimator, against the exact loss and gradient."""

import itertools
import math
from dataclasses import fields
from functools import partial

import torch
from torch import Tensor

from di4c.config.construct import create
from di4c.config.registry import Registry
from di4c.contracts import LossEstimator
from di4c.errors import Di4CError
from di4c.mixture.every_sample import every_sample
from di4c.mixture.sums import Query, statistics
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.exact import Exact
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from theory.claims import Claim, Line, at_least, at_most, within
from theory.drawing import log_axes, series
from theory.moments import Moments, Tables, chosen_components, moments, replicates

KNOWN_NEEDS = frozenset({"joint", "marginal", "kl", "target_joint"})
"""An estimator that needs anything else is not measured."""

SIGMAS = 5.0


def measure(small: bool = False) -> Claim:
    """Moments against M (= N) and against N, for all estimators that apply."""
    tables = Tables.random(5 if small else 20, 3, 2 if small else 3)
    sizes = [2, 4, 8] if small else [1, 2, 4, 8, 16]  # never the number of atoms: that would enumerate λ
    number = 3000 if small else 8000
    names = registered()
    by_m = {name: sweep(name, tables, [(m, m) for m in sizes], number) for name in names}
    fixed = 4 if small else 8
    drawn = [name for name in names if "target_joint" not in estimator_of(name).needs]
    by_n = {name: sweep(name, tables, [(fixed, n) for n in sizes], number) for name in drawn}
    lines = [
        *exact_lines(tables),
        *gradient_lines(tables, number),
        *bias_lines(by_m, sizes),
        *variance_lines(tables, by_n, sizes, number),
        *counterexample_lines(),
        jackknife_line(by_m, sizes),
    ]
    return Claim(
        "estimators",
        "Bias and variance of the loss estimators",
        "Over a finite prior of λ the exact loss and gradient are known. Monte Carlo is biased upwards by Jensen's "
        "inequality, like 1/M; the control variate has the same expected gradient; its variance is usually lower, not "
        "always.",
        lines,
        {"sizes": sizes, "fixed": fixed, "by_m": plain(by_m), "by_n": plain(by_n), "replicates": number},
    )


def registered() -> list[str]:
    """The registered estimators whose statistics a replicate can give; the exact one is the truth."""
    registry = Registry.default()
    names = []
    for target in registry.targets("loss_estimators"):
        try:
            if estimator_of(target.name).needs <= KNOWN_NEEDS:
                names.append(target.name)
        except (Di4CError, TypeError):  # one with required options, say
            continue
    return names


def estimator_of(name: str) -> LossEstimator:
    return create(Registry.default(), "loss_estimators", name, {})


def sweep(name: str, tables: Tables, cells: list[tuple[int, int]], number: int) -> dict[int, Moments]:
    """Moments by the place of the (M, N) among the cells; those that the estimator refuses are left out."""
    found = {}
    for k, (components, targets) in enumerate(cells):
        try:
            found[k] = moments(replicates(estimator_of(name), tables, components, targets, number, seed=k))
        except Di4CError:
            continue
    return found


def exact_lines(tables: Tables) -> list[Line]:
    """The exact estimator against sums written as loops, value and gradient."""
    student = tables.student.clone().requires_grad_()
    target = chosen_components(tables.target[None])
    samples, log_law = every_sample(target)
    query = Query(Exact.needs, samples, target, log_law=log_law)
    value = sum(Exact()(statistics(chosen_components(student[None]), [query])[0])).sum()
    error = value - brute_force(tables.target, student)
    (gradient,) = torch.autograd.grad(error, student)
    return [
        at_most("exact estimator: |value − sum over all x and λ|", float(error.detach().abs()), 1e-10),
        at_most("exact estimator: largest error of the gradient", float(gradient.abs().max()), 1e-10),
    ]


def brute_force(target: Tensor, student: Tensor) -> Tensor:
    """Σ_x q(x) log q(x)/p(x), every x and component in a loop of its own."""
    components, positions, states = target.shape
    total = student.new_zeros(())
    for x in itertools.product(range(states), repeat=positions):
        q, p = (
            sum(math.prod(table[m].softmax(-1)[d, v] for d, v in enumerate(x)) for m in range(components)) / components
            for table in (target, student)
        )
        total = total + q * (q / p).log()
    return total


def gradient_lines(tables: Tables, number: int) -> list[Line]:
    """Monte Carlo and control variate have one expected gradient: the worst coordinate of the difference."""
    lines = []
    for components, targets in ((2, 2), (4, 4)):
        plain_, controlled = (
            replicates(estimator, tables, components, targets, number, seed=99).gradient
            for estimator in (MonteCarlo(), ControlVariate())
        )
        gap = controlled - plain_
        z = gap.mean(0).abs() / (gap.std(0) / number**0.5).clamp_min(1e-300)
        name = f"expected gradients, M = N = {components}: worst |control variate − Monte Carlo|"
        lines.append(at_most(name, float(z.max()), SIGMAS, f"standard errors, {gap.shape[1]} coordinates"))
    return lines


def bias_lines(by_m: dict[str, dict[int, Moments]], sizes: list[int]) -> list[Line]:
    """Jensen's sign and the 1/M law for Monte Carlo; every other estimator's bias must shrink too."""
    plain_ = by_m["monte-carlo"]
    last, before = plain_[len(sizes) - 1], plain_[len(sizes) - 2]
    least, name = min(m.bias / m.bias_error for m in plain_.values()), "Monte Carlo: smallest bias of the value over M"
    lines = [at_least(f"{name}, in standard errors", least, SIGMAS, "Jensen: upwards")]
    slope = math.log2(last.bias / before.bias)
    error = math.hypot(*(m.bias_error / m.bias for m in (last, before))) / math.log(2)
    name = f"Monte Carlo: slope of the bias against M, M = {sizes[-2]} to {sizes[-1]}"
    lines.append(within(name, slope, -1.25 - SIGMAS * error, -0.75 + SIGMAS * error, f"± {SIGMAS * error:.2f}"))
    k = next(k for k, size in enumerate(sizes) if size >= 2)
    yardstick = plain_[k]
    for name, found in by_m.items():
        large = found[max(found)]
        for what, value, noise, against in (
            ("bias", abs(large.bias), large.bias_error, yardstick.bias),
            ("gradient's bias", large.gradient_bias, large.gradient_bias_error, yardstick.gradient_bias),
        ):
            title = f"{name}: {what}, M = {sizes[max(found)]}, in Monte Carlo's at M = {sizes[k]}"
            lines.append(at_most(title, value / against, 0.6 + SIGMAS * noise / against, f"{value:.2g} ± {noise:.1g}"))
    return lines


def variance_lines(tables: Tables, by_n: dict[str, dict[int, Moments]], sizes: list[int], number: int) -> list[Line]:
    """The variance falls with N; like 1/N exactly where λ is enumerated, since then samples are all that is drawn."""
    lines = []
    for name, found in by_n.items():
        first, last = found[0], found[len(sizes) - 1]
        noise = SIGMAS * (last.variance_error + first.variance_error)
        title = f"{name}: variance, N = {sizes[-1]}, as a share of N = 1"
        lines.append(at_most(title, last.variance / first.variance, 0.7 + noise / first.variance))
    atoms = len(tables.student)
    one, many = (moments(replicates(MonteCarlo(), tables, atoms, n, number, seed=5)) for n in (1, 4))
    ratio = 4 * many.variance / one.variance
    error = SIGMAS * ratio * math.hypot(*(m.variance_error / m.variance for m in (many, one)))
    lines.append(within("Monte Carlo, λ enumerated: 4·variance(N = 4) / variance(N = 1)", ratio, 1 - error, 1 + error))
    lines.append(at_most("Monte Carlo, λ enumerated: |bias|", abs(one.bias), 1e-9))
    for what, of in (("variance", "loss"), ("gradient_variance", "gradient")):
        controlled, plain_ = (by_n[name] for name in ("control-variate", "monte-carlo"))
        ratios = [getattr(controlled[k], what) / getattr(plain_[k], what) for k in range(len(sizes))]
        title = f"control variate / Monte Carlo: variance of the {of}, N = {sizes[-1]}"
        told = f"{min(ratios):.2f} to {max(ratios):.2f} over N"
        lines.append(Line(title, ratios[-1], "measured, not asserted", all(map(math.isfinite, ratios)), told))
    return lines


def counterexample_lines() -> list[Line]:
    """Uniform on {00, 01, 10}, fitted exactly: log p(x) is the same for all x, the control variate's part is not."""
    atoms = torch.tensor([[0, 0], [0, 1], [1, 0]])
    logits = torch.nn.functional.one_hot(atoms, 2).double().clamp_min(1e-12).log()
    samples, prediction = atoms[:, None], chosen_components(logits.expand(3, -1, -1, -1))
    values = (
        sum(estimator(statistics(prediction, [Query(estimator.needs, samples, prediction)])[0]))
        for estimator in (MonteCarlo(), ControlVariate())
    )
    plain_, controlled = (float(value.var(correction=0)) for value in values)
    wanted = 2 / 9 * math.log(2) ** 2  # Σ_d log p̄^d is log 4/9 at 00 and log 2/9 at 01 and 10
    title, told = "uniform on {00, 01, 10}: variance of", "(2/9)·(log 2)²: it is the noisier one here"
    return [
        at_most(f"{title} Monte Carlo", plain_, 1e-15),
        within(f"{title} the control variate", controlled, wanted - 1e-9, wanted + 1e-9, told),
    ]


def jackknife_line(by_m: dict[str, dict[int, Moments]], sizes: list[int]) -> Line:
    """At the middle of the sweep the jackknife has the smaller bias."""
    k = len(sizes) // 2
    plain_, debiased = by_m["monte-carlo"][k], by_m["jackknife"][k]
    noise = SIGMAS * (plain_.bias_error + debiased.bias_error) / plain_.bias
    return at_most(f"jackknife / Monte Carlo: |bias| at M = {sizes[k]}", abs(debiased.bias) / plain_.bias, 0.6 + noise)


def plain(found: dict[str, dict[int, Moments]]) -> dict:
    """As lists, for a results file: {name: {"place": […], moment: […]}}."""
    return {
        name: {
            "place": [*cells],
            **{key.name: [getattr(cell, key.name) for cell in cells.values()] for key in fields(Moments)},
        }
        for name, cells in found.items()
        if cells
    }


def draw_moment(axes, data: dict, sweep_name: str, moment: str, y_label: str) -> None:
    """Its size by M or by N, a line an estimator, where it is told from noise."""
    for k, (name, cells) in enumerate(data[sweep_name].items()):
        values = zip(cells["place"], map(abs, cells[moment]), cells[f"{moment}_error"], strict=True)
        points = [(data["sizes"][place], value, 2 * error) for place, value, error in values if value > 2 * error]
        if points:
            sizes, values, errors = zip(*points, strict=True)
            series(axes, sizes, values, k, name, error=errors)
    x_label = "components M = targets N" if sweep_name == "by_m" else f"targets N (M = {data['fixed']})"
    log_axes(axes, x_label, y_label, ticks=data["sizes"])


PANELS = [
    (title, partial(draw_moment, sweep_name=sweep_name, moment=moment, y_label=y_label))
    for title, sweep_name, moment, y_label in (
        ("Bias of the loss estimators", "by_m", "bias", "|bias| of the loss, nats"),
        ("Bias of their gradients", "by_m", "gradient_bias", "norm of the gradient's bias"),
        ("Variance of the loss estimators", "by_n", "variance", "variance of the loss, nats²"),
        ("Variance of their gradients", "by_n", "gradient_variance", "variance of the gradient"),
    )
]
