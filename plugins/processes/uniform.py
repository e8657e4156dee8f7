"""Uniform diffusion of unordered states."""

from di4c_plugins.processes.ctmc import ContinuousTimeChain
from di4c_plugins.processes.rates import ConstantTime, uniform_rate


class Uniform(ContinuousTimeChain):
    """Each position is redrawn uniformly at the constant rate `speed`: it is untouched by time t with e^{−speed·t}.

    Works on matrices [S, S], hence for vocabularies of up to a few thousand states.
    """

    def __init__(self, data_states: int, *, speed: float, ratio_floor: float = 1e-9, min_time: float = 0.01):
        time = ConstantTime(speed)
        super().__init__(uniform_rate(data_states), time, ratio_floor=ratio_floor, min_time=min_time)
