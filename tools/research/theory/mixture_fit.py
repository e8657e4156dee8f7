"""(c) Mixtures of products can be anything (Proposition 1): fitted to a correlated law, their error falls to zero."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from di4c.contracts import Draws, Prediction
from di4c.mixture.sums import Query, statistics
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.estimators.exact import Exact
from di4c_plugins.processes.enumeration import kl, product_law
from theory.claims import Claim, at_most, within
from theory.drawing import COLOURS, log_axes, series
from theory.moments import chosen_components

RESTARTS = 3


def measure(small: bool = False) -> Claim:
    """KL(q ‖ Σ_m w_m ∏_d p_m^d) of the best of several fits, by the project's exact loss, against the components M."""
    targets = {
        "permutations of three": permutations(),
        "a random table": Enumerable(positions=3, states=2 if small else 3, spread=1.5),
    }
    lines, curves = [], {}
    for name, data in targets.items():
        numbers = sorted({m for m in (1, 2, 3, 4, 6, 8, 12) if m <= int((data.probs > 0).sum())})
        numbers = numbers[:: 2 if small else 1]
        fits = [fit(data, m, steps=250 if small else 500) for m in numbers]
        product = total_correlation(data)
        shares, told = [value / product for value in fits], f"{product:.4f} nats"
        rise, point_mass = max(b - a for a, b in itertools.pairwise(shares)), point_masses(data)
        lines += [
            within(f"{name}: KL of one component / total correlation", shares[0], 1 - 1e-4, 1 + 1e-3, told),
            at_most(f"{name}: largest rise of KL from M to the next M, share of M = 1", rise, 1e-3),
            at_most(f"{name}: KL at M = {numbers[-1]}, share of M = 1", shares[-1], 1e-3),
            at_most(
                f"{name}: KL of one point mass a state, weighted", point_mass, 1e-12, "the proposition's own mixture"
            ),
        ]
        curves[name] = {"components": numbers, "kl": fits, "total_correlation": product}
    return Claim(
        "mixture_fit",
        "Mixtures of products reach any law",
        "Proposition 1: every law on S^D is a mixture of products. One component leaves the total correlation; more "
        "components leave less, and enough of them nothing.",
        lines,
        {"curves": curves},
    )


def permutations() -> Enumerable:
    """Uniform on the six orders of 0, 1, 2: no two positions agree."""
    data = Enumerable(positions=3, states=3)
    apart = [float(len(set(row)) == 3) for row in data.states.tolist()]
    return Enumerable(positions=3, states=3, probs=apart)


def total_correlation(data: Enumerable) -> float:
    """KL(q ‖ ∏_d q^d), nats: what the best product leaves."""
    one_hot = torch.nn.functional.one_hot(data.states, data.num_states).double()
    marginals = torch.einsum("k,kds->ds", data.probs, one_hot)
    return float(kl(data.probs, product_law(marginals, data.states)))


def point_masses(data: Enumerable) -> float:
    """KL of the mixture of one certain component a state, λ = the state, by the exact estimator."""
    certain = Prediction.point(data.states, data.states, data.num_states).features.double()
    log_weights = data.probs.clamp_min(1e-300).log()
    return float(loss(data, certain[None], log_weights))


def loss(data: Enumerable, logits: Tensor, log_weights: Tensor | None = None) -> Tensor:
    """KL(q ‖ mixture) of each row of logits [R, M, D, S], through statistics and the exact estimator: [R]."""
    rows = len(logits)
    samples = data.states.expand(rows, -1, -1)
    prediction = chosen_components(logits, log_weights)
    log_law = data.probs.clamp_min(1e-300).log().expand(rows, -1)
    query = Query(Exact.needs, samples, log_law=log_law)
    return sum(Exact()(statistics(prediction, [query])[0]))


def fit(data: Enumerable, components: int, *, steps: int) -> float:
    """The least KL over restarts, by L-BFGS on free logits and weights."""
    start = Draws(components, count=RESTARTS).normal(components, data.num_positions, data.num_states)
    best = math.inf
    for row in range(1 if components == 1 else RESTARTS):
        logits = start[row : row + 1].clone().requires_grad_()
        weights = torch.zeros(components, dtype=torch.float64, requires_grad=True)
        value = lambda logits=logits, weights=weights: loss(data, logits, weights.log_softmax(0)).sum()
        options = {"history_size": 20, "tolerance_grad": 1e-9, "tolerance_change": 1e-14}
        best = min(best, minimise([logits, weights], value, max_iter=steps, **options))
    return best


def minimise(parameters: list[Tensor], value: Callable[[], Tensor], **options) -> float:
    """The least of value() by L-BFGS with a line search, from where the parameters are; they end there."""
    optimizer = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = value()
        found.backward()
        return found

    optimizer.step(closure)
    with torch.no_grad():
        return float(value())


def draw_fits(axes, data: dict) -> None:
    for k, (name, curve) in enumerate(data["curves"].items()):
        series(axes, curve["components"], [max(v, 1e-8) for v in curve["kl"]], k, name)
        axes.axhline(curve["total_correlation"], color=COLOURS[k], linestyle=":", linewidth=1.1)
    ticks = sorted({m for curve in data["curves"].values() for m in curve["components"]})
    log_axes(axes, "components M", "KL to the target, nats (least shown 1e-8)", ticks=ticks)


PANELS = [("Mixtures fitted to a correlated law", draw_fits)]
