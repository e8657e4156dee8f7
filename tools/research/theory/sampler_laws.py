"""The exact laws of the registered samplers' output, from what each says it does; independent of their code.

A law is a vector over S^D, a step a matrix [from, to].
"""

import itertools
import math

import torch
from torch import Tensor

from di4c.contracts import ForwardProcess
from di4c_plugins.processes.ctmc import ContinuousTimeChain
from di4c_plugins.processes.enumeration import dense_probs, every_state, number_of, prior_law, product_law, step_matrix
from di4c_plugins.samplers.halton import halton_order
from di4c_plugins.samplers.maskgit import reveal_counts
from theory.spaces import Predict, at


def ancestral_law(
    process: ForwardProcess,
    predict: Predict,
    positions: int,
    times: list[float],
    *,
    handover: float = -1.0,
    late: Predict | None = None,
) -> Tensor:
    """Ancestral steps over `times` from the prior; from the time `handover` down by the denoiser `late`."""
    x = every_state(process.num_states, positions)
    law = prior_law(process, positions)
    for t, s in itertools.pairwise(times):
        model = late if t <= handover else predict
        law = law @ step_matrix(process, model(x, at(x, t)), t, s)
    return law


def min_time_law(
    process: ForwardProcess, predict: Predict, positions: int, times: list[float], step, *, final: str
) -> Tensor:
    """`step(t, s)` matrices from the prior down to min_time, where x_0 is drawn from the denoiser or is its argmax."""
    x = every_state(process.num_states, positions)
    law = prior_law(process, positions)
    for t, s in itertools.pairwise(times[:-1]):
        law = law @ step(t, s)
    prediction = predict(x, at(x, times[-2]))
    if final == "draw":
        return law @ step_matrix(process, prediction, times[-2], 0.0)
    likeliest = number_of(dense_probs(prediction)[:, 0].argmax(-1), process.num_states)
    return law @ torch.nn.functional.one_hot(likeliest, len(x)).double()


def leap_matrix(
    process: ContinuousTimeChain,
    predict: Predict,
    positions: int,
    t: float,
    duration: float,
    *,
    ordered: bool,
    forward: bool = False,
) -> Tensor:
    """One tau-leap: every position adds up Poisson numbers of jumps (ordered, clamped) or makes the only one it has."""
    x = every_state(process.num_states, positions)
    time = at(x, t)
    p_0 = dense_probs(predict(x, time))[:, 0]
    rates = process.reverse_rates(process.tables(time), x, p_0, time)
    if forward:
        rates = rates + process.forward_rates(x, time)
    one = _added_jumps if ordered else _only_jump
    p = torch.stack(
        [torch.stack([one(int(x[b, d]), rates[b, d] * duration) for d in range(positions)]) for b in range(len(x))]
    )
    return product_law(p, x)


def _only_jump(here: int, mean: Tensor) -> Tensor:
    """Poisson jumps of means [S] from `here`: to y if that is the only one, P = m_y e^{−Σ m}, else none: [S]."""
    p = mean * torch.exp(-mean.sum())
    p[here] = 0.0
    p[here] = 1 - p.sum()
    return p


def _added_jumps(here: int, mean: Tensor, most: int = 60) -> Tensor:
    """The law of here + Σ_y (y − here)·K_y, K_y ~ Poisson(m_y), clamped to the states: [S]."""
    states = len(mean)
    reach = most * states
    shift = torch.zeros(2 * reach + 1, dtype=torch.float64)
    shift[reach] = 1.0
    for y in range(states):
        if y == here or mean[y] <= 0:
            continue
        added = torch.zeros_like(shift)
        for k in range(most):
            move = (y - here) * k
            weight = math.exp(-float(mean[y]) + k * math.log(float(mean[y])) - math.lgamma(k + 1))
            if weight > 1e-18:
                added += weight * torch.roll(shift, move)
        shift = added
    to = (torch.arange(-reach, reach + 1) + here).clamp(0, states - 1)
    return torch.zeros(states, dtype=torch.float64).index_add(0, to, shift)


def maskgit_law(
    process: ForwardProcess, predict: Predict, positions: int, steps: int, *, annealing: str, temperature: float
) -> Tensor:
    """Draw all masked tokens, keep the most confident: by their log-probability, with Gumbel noise, or at random.

    Gumbel noise of scale τ ranks like drawing without replacement with weights p^{1/τ} (Plackett and Luce).
    """
    x = every_state(process.num_states, positions)
    law, mask = prior_law(process, positions), process.mask_index
    for i, count in enumerate(reveal_counts(process.schedule, positions, steps).tolist()):
        p_0 = dense_probs(predict(x, at(x, 1 - i / steps)))[:, 0]
        scale = temperature * (1 - (i / (steps - 1) if steps > 1 else 0.0))
        step = torch.zeros(len(x), len(x), dtype=torch.float64)
        for a in law.nonzero().flatten().tolist():
            masked = [d for d in range(positions) if x[a, d] == mask]
            number = len(masked) if i == steps - 1 else min(count, len(masked))
            for tokens in itertools.product(range(process.num_states - 1), repeat=len(masked)):
                chance = [float(p_0[a, d, v]) for d, v in zip(masked, tokens, strict=True)]
                for kept, share in _kept(chance, number, annealing, scale).items():
                    y = x[a].clone()
                    for j in kept:
                        y[masked[j]] = tokens[j]
                    step[a, number_of(y, process.num_states)] += math.prod(chance) * share
        law = law @ step
    return law


def _kept(chance: list[float], number: int, annealing: str, scale: float) -> dict[tuple[int, ...], float]:
    """Which drawn tokens are kept, with what probability: {indices: share}."""
    everyone = range(len(chance))
    if number >= len(chance):
        return {tuple(everyone): 1.0}
    if annealing == "random":
        sets = list(itertools.combinations(everyone, number))
        return {kept: 1 / len(sets) for kept in sets}
    if annealing == "none" or scale <= 0:
        best = sorted(everyone, key=lambda j: -math.log(max(chance[j], 1e-300)))[:number]
        return {tuple(sorted(best)): 1.0}
    weights = [max(c, 1e-300) ** (1 / scale) for c in chance]
    shares: dict[tuple[int, ...], float] = {}
    for order in itertools.permutations(everyone, number):
        left, share = sum(weights), 1.0
        for j in order:
            share, left = share * weights[j] / left, left - weights[j]
        key = tuple(sorted(order))
        shares[key] = shares.get(key, 0.0) + share
    return shares


def halton_law(process: ForwardProcess, predict: Predict, positions: int, steps: int) -> Tensor:
    """Every step draws the next positions of the Halton order, as many as the schedule asks for, one at least."""
    x = every_state(process.num_states, positions)
    law, mask = prior_law(process, positions), process.mask_index
    order = halton_order(math.isqrt(positions)).tolist()
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for n in range(steps):
        p_0 = dense_probs(predict(x, at(x, float(times[n]))))[:, 0]
        wanted = int((1 - float(process.schedule.masked(times[n + 1 : n + 2])[0])) * positions + 1e-9)
        rows = torch.zeros_like(p_0)
        for a in range(len(x)):
            masked = [d for d in order if x[a, d] == mask]
            now = set(masked[: max(wanted - (positions - len(masked)), 1)])
            for d in range(positions):
                rows[a, d] = p_0[a, d] if d in now else torch.nn.functional.one_hot(x[a, d], process.num_states)
        law = law @ product_law(rows, x)
    return law
