"""(e) Bias and variance of every registered estimator, against the exact loss and gradient."""

import itertools
import math

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
    by_n = {
        name: sweep(name, tables, [(fixed, n) for n in sizes], number)
        for name in names
        if "target_joint" not in estimator_of(name).needs
    }
    lines = [
        *exact_lines(tables),
        *gradient_lines(tables, number),
        *bias_lines(by_m, sizes),
        *variance_lines(tables, by_n, sizes, number),
        *counterexample_lines(),
    ]
    if "jackknife" in names:
        lines.append(jackknife_line(by_m, sizes))
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
    target = tables.prediction(tables.target)
    samples, log_law = every_sample(target)
    value = sum(
        Exact()(statistics(tables.prediction(student), [Query(Exact.needs, samples, target, log_law=log_law)])[0])
    ).sum()
    again = tables.student.clone().requires_grad_()
    wanted = brute_force(tables.target, again)
    gradients = [torch.autograd.grad(v, x)[0] for v, x in ((value, student), (wanted, again))]
    return [
        at_most("exact estimator: |value − sum over all x and λ|", (value - wanted).detach().abs().item(), 1e-10),
        at_most(
            "exact estimator: largest error of the gradient", float((gradients[0] - gradients[1]).abs().max()), 1e-10
        ),
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
    lines = [
        at_least(
            "Monte Carlo: smallest bias of the value over M, in standard errors",
            min(m.bias / m.bias_error for m in plain_.values()),
            SIGMAS,
            "Jensen: upwards",
        )
    ]
    slope = math.log2(last.bias / before.bias)
    error = ((last.bias_error / last.bias) ** 2 + (before.bias_error / before.bias) ** 2) ** 0.5 / math.log(2)
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
    error = (
        SIGMAS * ratio * ((many.variance_error / many.variance) ** 2 + (one.variance_error / one.variance) ** 2) ** 0.5
    )
    lines.append(within("Monte Carlo, λ enumerated: 4·variance(N = 4) / variance(N = 1)", ratio, 1 - error, 1 + error))
    lines.append(at_most("Monte Carlo, λ enumerated: |bias|", abs(one.bias), 1e-9))
    for what in ("variance", "gradient_variance"):
        ratios = [
            getattr(by_n["control-variate"][k], what) / getattr(by_n["monte-carlo"][k], what) for k in range(len(sizes))
        ]
        text = f"{min(ratios):.2f} to {max(ratios):.2f} over N"
        of = "of the loss" if what == "variance" else "of the gradient"
        lines.append(
            Line(
                f"control variate / Monte Carlo: variance {of}, N = {sizes[-1]}",
                ratios[-1],
                "measured, not asserted",
                all(math.isfinite(r) for r in ratios),
                text,
            )
        )
    return lines


def counterexample_lines() -> list[Line]:
    """Uniform on {00, 01, 10}, fitted exactly: log p(x) is the same for all x, the control variate's part is not."""
    atoms = torch.tensor([[0, 0], [0, 1], [1, 0]])
    logits = torch.nn.functional.one_hot(atoms, 2).double().clamp_min(1e-12).log()
    samples, prediction = atoms[:, None], chosen_components(logits.expand(3, -1, -1, -1))
    variances = {}
    for name, estimator in (("Monte Carlo", MonteCarlo()), ("control variate", ControlVariate())):
        value = sum(estimator(statistics(prediction, [Query(estimator.needs, samples, prediction)])[0]))
        variances[name] = float(value.var(correction=0))
    wanted = 2 / 9 * math.log(2) ** 2  # Σ_d log p̄^d is log 4/9 at 00 and log 2/9 at 01 and 10
    return [
        at_most("uniform on {00, 01, 10}: variance of Monte Carlo", variances["Monte Carlo"], 1e-15),
        within(
            "uniform on {00, 01, 10}: variance of the control variate",
            variances["control variate"],
            wanted - 1e-9,
            wanted + 1e-9,
            "(2/9)·(log 2)²: it is the noisier one here",
        ),
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
            "place": sorted(cells),
            **{key: [getattr(cells[k], key) for k in sorted(cells)] for key in vars(next(iter(cells.values())))},
        }
        for name, cells in found.items()
        if cells
    }


def _draw(axes, data: dict, sweep_name: str, key: str, x_label: str, y_label: str) -> None:
    for k, (name, cells) in enumerate(data[sweep_name].items()):
        sizes = [data["sizes"][place] for place in cells["place"]]
        points = [
            (m, abs(v), e) for m, v, e in zip(sizes, cells[key], cells[f"{key}_error"], strict=True) if abs(v) > 2 * e
        ]
        if points:
            series(
                axes, *zip(*[(m, v) for m, v, _ in points], strict=True), k, name, error=[2 * e for _, _, e in points]
            )
    log_axes(axes, x_label, y_label, base=2, ticks=data["sizes"])


def draw_bias(axes, data: dict) -> None:
    _draw(axes, data, "by_m", "bias", "components M = targets N", "|bias| of the loss, nats")


def draw_gradient_bias(axes, data: dict) -> None:
    _draw(axes, data, "by_m", "gradient_bias", "components M = targets N", "norm of the gradient's bias")


def draw_variance(axes, data: dict) -> None:
    _draw(axes, data, "by_n", "variance", f"targets N (M = {data['fixed']})", "variance of the loss, nats²")


def draw_gradient_variance(axes, data: dict) -> None:
    _draw(axes, data, "by_n", "gradient_variance", f"targets N (M = {data['fixed']})", "variance of the gradient")


PANELS = [
    ("Bias of the loss estimators", draw_bias),
    ("Bias of their gradients", draw_gradient_bias),
    ("Variance of the loss estimators", draw_variance),
    ("Variance of their gradients", draw_gradient_variance),
]
