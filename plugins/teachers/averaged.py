"""A student with λ used as a product teacher: its components are averaged."""

import torch
from torch import Tensor, nn

from di4c.contracts import ForwardProcess, LambdaSampler, Prediction, StudentHead, Teacher
from di4c.errors import SpecError


class AveragedStudent(Teacher):
    """A student's marginals: p^ψ(x_0 | x_t) = ∏_d Σ_k w_k p^{θ,d}(x_0^d | x_t; λ_k), the K values of λ being fixed.

    A plugin sets `head`, the student's λ head, `lam` [K, L] and `log_weights` [K] besides what a Teacher has. Nothing is
    drawn. A prediction costs K passes of the layers that λ acts on.
    """

    head: StudentHead
    lam: Tensor
    log_weights: Tensor

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        """The averaged product as one component."""
        context = self.head.context(self.lam.to(x_t.device).expand(len(x_t), -1, -1))
        features = self.backbone(x_t, t, cond, context)
        prediction = Prediction(
            features, x_t, self.backbone.readout, self.parameterisation, self.process.num_states,
            components=len(self.lam), modulation=context.modulation,
        )  # fmt: skip
        return prediction.average(self.log_weights.to(x_t.device))

    @property
    def network(self) -> nn.Module:
        return nn.ModuleDict({"backbone": self.backbone, "head": self.head})

    def warm_start(self, head: StudentHead) -> None:
        """Copies the λ layers into a head of the same kind and size; another head starts afresh."""
        own, fresh = self.head.state_dict(), head.state_dict()
        shapes, wanted = ({name: value.shape for name, value in state.items()} for state in (own, fresh))
        if type(head) is type(self.head) and shapes == wanted:
            head.load_state_dict(own)


INFINITE = 16
"""The values of λ that stand for an infinite law, if a spec does not say how many."""


class Averaged(AveragedStudent):
    """The student of a distillation run of this project (`run`) as teacher.

    components: K, the values of λ; by default all atoms of a finite law with their weights, which is exact, and 16 of an
    infinite one: midpoints of its quantiles (Sobol points for L > 1) stand for it. Its students start from its network and, if
    their head is of the same kind and size, from its λ layers.
    """

    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        components: int | None = None,
        student: nn.Module | None = None,
        latent: LambdaSampler | None = None,
    ):
        if student is None or latent is None:
            raise SpecError("teacher averaged: `run` is missing: the folder of a distillation run")
        if student.num_states != process.num_states:
            raise SpecError(f"teacher averaged: {student.num_states} states in its run, {process.num_states} here")
        components = components or latent.num_atoms or INFINITE
        if components < 1:
            raise SpecError(f"teacher averaged: components is {components}; it must be at least 1")
        self.process, self.num_positions = process, num_positions
        self.backbone, self.head, self.parameterisation = student.backbone, student.head, student.parameterisation
        self.lam, weights = latent.support(components, None)
        self.log_weights = weights.double().clamp_min(1e-300).log()


def midpoints(components: int) -> tuple[Tensor, Tensor]:
    """(λ_k = (k − ½)/K: [K, 1] float32, log 1/K: [K]): what the published students average, λ ~ U[0, 1]."""
    lam = (torch.arange(components, dtype=torch.float32)[:, None] + 0.5) / components
    return lam, torch.full((components,), 1 / components, dtype=torch.float64).log()
