"""Exact tests of whether samples have a given law, and the rule by which a sampler fails."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIMULATIONS = 9999
STAGES = 3
LEVEL = 1e-3
"""A sampler fails if STAGES independent sets of samples all have p ≤ LEVEL; a correct one does so once in 1e9."""


@dataclass(frozen=True)
class Verdict:
    """The p-values of the stages that were needed; tv of the last stage's frequencies to the law; impossible: how many
    samples lie where the law has no mass."""

    p_values: list[float]
    tv: float
    impossible: int

    @property
    def ok(self) -> bool:
        return not self.impossible and self.p_values[-1] > LEVEL


def judged(counts_of_stage: Callable[[int], np.ndarray], law: np.ndarray, *, seed: int = 0) -> Verdict:
    """Up to STAGES tests, fresh counts [K] in each by `counts_of_stage`, until one is above LEVEL."""
    p_values: list[float] = []
    for stage in range(STAGES):
        counts = counts_of_stage(stage)
        impossible = int(counts[law < 1e-13].sum())
        p_values.append(p_value(counts, law, seed=seed + stage))
        tv = float(np.abs(counts / counts.sum() - law).sum() / 2)
        if impossible or p_values[-1] > LEVEL:
            break
    return Verdict(p_values, tv, impossible)


def p_value(counts: np.ndarray, law: np.ndarray, *, seed: int = 0) -> float:
    """P(G ≥ observed) for multinomial counts of the law, G the likelihood ratio: valid at any sample size.

    Exact by simulation, Barnard's test: (1 + number of the SIMULATIONS multinomials at least as far)/(1 + SIMULATIONS).
    """
    kept = law >= 1e-13
    expected = law[kept] / law[kept].sum()
    total = int(counts[kept].sum())
    drawn = np.random.Generator(np.random.Philox(seed)).multinomial(total, expected, size=SIMULATIONS)
    observed = likelihood_ratio(counts[kept][None], expected)[0]
    return float((1 + (likelihood_ratio(drawn, expected) >= observed * (1 - 1e-12)).sum()) / (1 + SIMULATIONS))


def likelihood_ratio(counts: np.ndarray, law: np.ndarray) -> np.ndarray:
    """2 Σ_x n_x log( n_x / (n·law_x) ), 0 log 0 = 0: [R] from counts [R, K]."""
    total = counts.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts * np.log(counts / (total * law)), 0.0)
    return 2 * terms.sum(-1)
