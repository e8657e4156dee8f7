"""Diffusion of ordered states by steps to a neighbour."""

import math

from di4c.errors import SpecError
from di4c_plugins.processes.ctmc import ContinuousTimeChain
from di4c_plugins.processes.rates import ExponentialTime, birth_death_rate


class BirthDeath(ContinuousTimeChain):
    """Levels that move up or down by one, at rate β(t) each (Campbell et al. 2022); uniform in the end.

    ∫₀ᵗ β = ½·sigma_min²·((sigma_max/sigma_min)^{2t} − 1). The prior is reached only if sigma_max is a good deal
    larger than the number of states.
    """

    def __init__(
        self, data_states: int, *, sigma_min: float, sigma_max: float, ratio_floor: float = 1e-9, min_time: float = 0.01
    ):
        if not 0 < sigma_min < sigma_max < math.inf:
            raise SpecError(f"process: 0 < sigma_min < sigma_max, both finite; found {sigma_min} and {sigma_max}")
        time = ExponentialTime(sigma_min**2 / 2, (sigma_max / sigma_min) ** 2)
        super().__init__(birth_death_rate(data_states), time, ratio_floor=ratio_floor, min_time=min_time)
