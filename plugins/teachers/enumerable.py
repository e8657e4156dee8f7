"""The exact teacher of a data law that is a table: what a perfectly trained product model would be."""

from typing import Any

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, Backbone, Context, ForwardProcess, IdentityOutputHead, Raw, Teacher
from di4c.errors import SpecError
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.parameterisations.subs import Subs


class EnumerableTeacher(Teacher):
    """p^ψ(x_0 | x_t) = ∏_d p(x_0^d | x_t), the exact posterior marginals of the table of `data: enumerable`.

    Works with every process that has transition matrices (absorbing, uniform, discretised-gaussian, …). It has no
    weights: `backbone` is the network that a student starts from, afresh.
    """

    def __init__(
        self, process: ForwardProcess, num_positions: int, *, data: Enumerable, backbone: Backbone | None = None
    ):
        if not hasattr(data, "probs"):
            raise SpecError("teacher enumerable: needs the table of `data: enumerable`")
        if not hasattr(process, "transition"):
            raise SpecError(f"teacher enumerable: {type(process).__name__} has no transition matrices")
        self.process, self.num_positions = process, num_positions
        self.parameterisation = Raw() if process.mask_index is None else Subs(process)
        self.backbone = PosteriorMarginals(process, data.states, data.probs)
        self.student_network = backbone

    def student_backbone(self) -> Backbone:
        """A copy of `backbone`, with its initial weights."""
        if self.student_network is None:
            raise SpecError("teacher enumerable: a student needs teacher.backbone, the network it starts from")
        return self.student_network.for_student()


class PosteriorMarginals(Backbone):
    """log p(x_0^d | x_t) of a table as features: [B, D, S] float64; the output head is the identity.

    An x_t that the table cannot reach gets the limit of tables with a vanishing uniform part.
    """

    def __init__(self, process: ForwardProcess, states: Tensor, probs: Tensor):
        super().__init__()
        self.process: Any = process  # one with a `transition`
        self.width, self.readout = process.num_states, IdentityOutputHead()
        self.register_buffer("states", states)
        # Half of LOG_ZERO: states outside the table are unlikely, transitions that cannot be are more so.
        self.register_buffer("log_probs", torch.where(probs > 0, probs.log(), LOG_ZERO / 2))
        self.register_buffer("one_hot", torch.nn.functional.one_hot(states, process.num_states).double())

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None) -> Tensor:
        marginals = torch.einsum("bk,kds->bds", self.posterior(x_t, t), self.one_hot)
        return torch.where(marginals > 0, marginals.log(), LOG_ZERO)

    def posterior(self, x_t: Tensor, t: Tensor) -> Tensor:
        """p(x_0 | x_t) over the table's states: [B, K] float64."""
        to_x_t = self.process.transition(t)  # [B, from, to]
        column = x_t[:, None, :].expand(-1, to_x_t.shape[1], -1)
        likelihood = to_x_t.gather(2, column).transpose(1, 2)  # [B, D, S]: q(x_t^d | x_0^d)
        log_likelihood = torch.where(likelihood > 0, likelihood.log(), LOG_ZERO)
        log_joint = self.log_probs.expand(len(x_t), -1)
        for d in range(x_t.shape[1]):
            log_joint = log_joint + log_likelihood[:, d, self.states[:, d]]
        return log_joint.softmax(-1)
