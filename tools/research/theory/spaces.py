"""The small spaces that claims are measured on, and chains of reverse steps over them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from di4c.contracts import ForwardProcess, LambdaSampler, Prediction, Teacher
from di4c.mixture.student import MixtureStudent
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.discretised_gaussian import DiscretisedGaussian
from di4c_plugins.processes.enumeration import every_state, prior_law, step_matrix
from di4c_plugins.processes.uniform import Uniform
from di4c_plugins.teachers.enumerable import EnumerableTeacher

Predict = Callable[[Tensor, Tensor], Prediction]
"""(x_t [B, D], t [B]) → p(x_0 | x_t), with all components."""

Step = Callable[[float, float], Tensor]
"""(t, s) → p(x_s | x_t) of every state: [S^D, S^D]."""


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


def at(x: Tensor, t: float) -> Tensor:
    """The time t for every row of x: [B] float64."""
    return torch.full((len(x),), t, dtype=torch.float64)


def even_times(steps: int) -> list[float]:
    """1 = t_N > … > t_0 = 0."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()


def every_component(student: MixtureStudent, latent: LambdaSampler) -> Predict:
    """The student with all atoms of its finite prior of λ as weighted components."""
    atoms, log_weights = torch.eye(latent.num_atoms), latent.log_weights(latent.num_atoms)
    return lambda x, t: student.predict(x, t, None, atoms.expand(len(x), -1, -1), log_weights)


@dataclass(frozen=True)
class Chain:
    """Reverse steps over every state of a space by one denoiser; λ, if any, is fresh in every step."""

    process: ForwardProcess
    predict: Predict
    positions: int

    @classmethod
    def of(cls, teacher: Teacher) -> "Chain":
        return cls(teacher.process, teacher.predict, teacher.num_positions)

    @cached_property
    def states(self) -> Tensor:
        """Every x_t: [S^D, D]."""
        return every_state(self.process.num_states, self.positions)

    @cached_property
    def prior(self) -> Tensor:
        """The law of x_1: [S^D]."""
        return prior_law(self.process, self.positions)

    def at(self, t: float) -> Prediction:
        """p(x_0 | x_t) at every x_t."""
        return self.predict(self.states, at(self.states, t))

    def step(self, t: float, s: float) -> Tensor:
        """The ancestral step: [S^D, S^D]."""
        return step_matrix(self.process, self.at(t), t, s)

    def law(self, times: Sequence[float], start: Tensor | None = None, step: Step | None = None) -> Tensor:
        """The law [S^D] after steps over `times`, ancestral ones if not told otherwise, from the prior or the law `start`."""
        law = self.prior if start is None else start
        for t, s in itertools.pairwise(times):
            law = law @ (step or self.step)(t, s)
        return law
