"""The exact laws of the registered samplers' output, from what each says it does; independent of their code.

A law is a vector over S^D, a step a matrix [from, to].
"""

import itertools
import math

import torch
from torch import Tensor

from di4c_plugins.processes.enumeration import dense_probs, number_of, product_law
from di4c_plugins.samplers.halton import halton_order
from di4c_plugins.samplers.maskgit import reveal_counts
from theory.spaces import Chain, Step, at, even_times


def min_time_law(chain: Chain, times: list[float], step: Step, *, final: str = "draw") -> Tensor:
    """`step(t, s)` matrices from the prior down to min_time, where x_0 is drawn from the denoiser or is its argmax."""
    law, end = chain.law(times[:-1], step=step), times[-2]
    if final == "draw":
        return law @ chain.step(end, 0.0)
    likeliest = number_of(dense_probs(chain.at(end))[:, 0].argmax(-1), chain.process.num_states)
    return law @ torch.nn.functional.one_hot(likeliest, len(law)).double()


def leap_matrix(chain: Chain, t: float, duration: float, *, ordered: bool, forward: bool = False) -> Tensor:
    """One tau-leap of a continuous-time chain: every position adds up Poisson numbers of jumps (ordered, clamped) or makes the only one
    it has."""
    process, x, time = chain.process, chain.states, at(chain.states, t)
    rates = process.reverse_rates(process.tables(time), x, dense_probs(chain.at(t))[:, 0], time)
    if forward:
        rates = rates + process.forward_rates(x, time)
    one = _added_jumps if ordered else _only_jump
    rows = [
        [one(int(here), mean * duration) for here, mean in zip(*row, strict=True)] for row in zip(x, rates, strict=True)
    ]
    return product_law(torch.stack([torch.stack(row) for row in rows]), x)


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
    jumps = torch.arange(most, dtype=torch.float64)
    for y in {*range(states)} - {here}:
        chances = (torch.xlogy(jumps, mean[y]) - mean[y] - torch.lgamma(jumps + 1)).exp()
        shift = sum(chance * shift.roll((y - here) * k) for k, chance in enumerate(chances))
    to = (torch.arange(-reach, reach + 1) + here).clamp(0, states - 1)
    return torch.zeros(states, dtype=torch.float64).index_add(0, to, shift)


def maskgit_law(chain: Chain, steps: int, *, annealing: str, temperature: float) -> Tensor:
    """Draw all masked tokens, keep the most confident: by their log-probability, with Gumbel noise, or at random.

    Gumbel noise of scale τ ranks like drawing without replacement with weights p^{1/τ} (Plackett and Luce).
    """
    process, x, law = chain.process, chain.states, chain.prior
    for i, count in enumerate(reveal_counts(process.schedule, chain.positions, steps).tolist()):
        p_0 = dense_probs(chain.at(1 - i / steps))[:, 0]
        scale = temperature * (1 - (i / (steps - 1) if steps > 1 else 0.0))
        step = torch.zeros(len(x), len(x), dtype=torch.float64)
        for a in law.nonzero().flatten().tolist():
            masked = (x[a] == process.mask_index).nonzero().flatten().tolist()
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


def halton_law(chain: Chain, steps: int) -> Tensor:
    """Every step draws the next positions of the Halton order, as many as the schedule asks for, one at least."""
    process, x, law, positions = chain.process, chain.states, chain.prior, chain.positions
    order = halton_order(math.isqrt(positions)).tolist()
    for t, s in itertools.pairwise(even_times(steps)):
        wanted = int((1 - float(process.schedule.masked(torch.tensor(s).double()))) * positions + 1e-9)
        rows = torch.nn.functional.one_hot(x, process.num_states).double()
        for row, here, p_0 in zip(rows, x, dense_probs(chain.at(t))[:, 0], strict=True):
            masked = [d for d in order if here[d] == process.mask_index]
            now = masked[: max(wanted - (positions - len(masked)), 1)]
            row[now] = p_0[now]
        law = law @ product_law(rows, x)
    return law
