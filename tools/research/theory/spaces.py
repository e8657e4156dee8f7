"""The small spaces that claims are measured on, and chains of reverse steps over them."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from di4c.contracts import ForwardProcess, Prediction
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.discretised_gaussian import DiscretisedGaussian
from di4c_plugins.processes.enumeration import every_state, step_matrix
from di4c_plugins.processes.uniform import Uniform
from di4c_plugins.teachers.enumerable import EnumerableTeacher

Predict = Callable[[Tensor, Tensor], Prediction]
"""(x_t [B, D], t [B]) → p(x_0 | x_t), with all components."""


def processes(states: int) -> dict[str, ForwardProcess]:
    """One process of each kind, without the ratio floor that guards large vocabularies."""
    gaussian = {"rate_sigma": 1.0, "target_sigma": 2.0, "time_base": 1.0, "time_exponential": 4.0}
    return {
        "absorbing": Absorbing(states),
        "uniform": Uniform(states, speed=4.0, ratio_floor=0.0),
        "discretised Gaussian": DiscretisedGaussian(states, **gaussian, ratio_floor=0.0),
    }


def teacher_of(process: ForwardProcess, data: Enumerable) -> EnumerableTeacher:
    """The exact teacher of the data's table."""
    return EnumerableTeacher(process, data.num_positions, data=data).freeze()


def states_of(process: ForwardProcess, data: Enumerable) -> Tensor:
    """Every x_t: [S^D, D]."""
    return every_state(process.num_states, data.num_positions)


def at(x: Tensor, t: float) -> Tensor:
    """The time t for every row of x: [B] float64."""
    return torch.full((len(x),), t, dtype=torch.float64)


def even_times(steps: int) -> list[float]:
    """1 = t_N > … > t_0 = 0."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()


def chain_law(process: ForwardProcess, predict: Predict, start: Tensor, x: Tensor, times: Sequence[float]) -> Tensor:
    """The law [S^D] after ancestral steps over `times`, from the law `start`; λ, if any, is fresh in every step."""
    law = start
    for t, s in itertools.pairwise(times):
        law = law @ step_matrix(process, predict(x, at(x, t)), t, s)
    return law
