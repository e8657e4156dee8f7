"""A student with λ as a teacher: its marginals are the average of its components."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from di4c.contracts import Denoiser, Draws, ForwardProcess, LambdaSampler, Prediction, StudentHead, Teacher
from di4c.errors import SpecError
from di4c_plugins.latents.unit_cube import Uniform

INFINITE = 16
"""The values of λ that stand for an infinite prior, if a spec does not say how many."""

Steps = Literal["mixture", "product"]


class AveragedStudent(Teacher):
    """A student's marginals as p^ψ(x_0 | x_t) = ∏_d Σ_k w_k p^{θ,d}(x_0^d | x_t; λ_k), the K values of λ being fixed.

    A plugin sets `head`, the student's λ head, and calls `set_law` besides what a Teacher needs. `predict` draws nothing
    and costs K passes of the layers that λ acts on; losses compare marginals with it. Where samples are made step by step
    (x_u in the consistency loss, rollouts, hybrids), a step is of the mixture: one λ a sequence and call, which keeps its
    positions dependent, as in the published code of a second round. steps "product" makes them of the averaged product.
    """

    head: StudentHead
    latent: LambdaSampler
    lam: Tensor
    log_weights: Tensor
    steps: Steps

    def set_law(self, latent: LambdaSampler, components: int, steps: Steps) -> None:
        """The λ sampler, the number K of values that stand for it in the average, and how steps are made."""
        if components < 1:
            raise SpecError(f"teacher: {components} values of λ are averaged; at least 1 is needed")
        self.latent, self.steps = latent, steps
        self.lam, weights = latent.discretised(components, None)
        self.log_weights = weights.double().clamp_min(1e-300).log()

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        """The averaged product as one component."""
        return self._weighted(x_t, t, cond).average()

    def denoiser(self, draws: Draws) -> Denoiser:
        if self.steps == "product":
            return self.predict

        @torch.no_grad()
        def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
            lam = self.latent.sample(1, draws).to(x_t.device)
            return self._components(x_t, t, cond, lam.repeat(len(x_t) // len(lam), 1, 1))

        return denoise

    @torch.no_grad()
    def components(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        return self.predict(x_t, t, cond) if self.steps == "product" else self._weighted(x_t, t, cond)

    @property
    def network(self) -> nn.Module:
        return nn.ModuleDict({"backbone": self.backbone, "head": self.head})

    def warm_start(self, head: StudentHead) -> None:
        """Copies the λ layers into a head of the same kind and size; another head starts afresh."""
        own, fresh = self.head.state_dict(), head.state_dict()
        shapes, wanted = ({name: value.shape for name, value in state.items()} for state in (own, fresh))
        if type(head) is type(self.head) and shapes == wanted:
            head.load_state_dict(own)

    def _weighted(self, x_t: Tensor, t: Tensor, cond: Tensor | None) -> Prediction:
        """The components of the K fixed values of λ, with their weights."""
        lam = self.lam.to(x_t.device).expand(len(x_t), -1, -1)
        return replace(self._components(x_t, t, cond, lam), log_weights=self.log_weights.to(x_t.device))

    def _components(self, x_t: Tensor, t: Tensor, cond: Tensor | None, lam: Tensor) -> Prediction:
        """The M components of λ [B, M, L]."""
        context = self.head.context(lam)
        return Prediction(
            self.backbone(x_t, t, cond, context), x_t, self.backbone.readout, self.parameterisation,
            self.process.num_states, components=lam.shape[1], modulation=context.modulation,
        )  # fmt: skip


class Averaged(AveragedStudent):
    """The student of a distillation run of this project (`run`) as teacher.

    components: K, the values of λ that are averaged; by default all atoms of a finite prior with their weights, which is exact,
    and 16 of an infinite one: midpoints of its quantiles (Sobol points for L > 1). steps: see AveragedStudent. Its students
    start from its network and, if their head is of the same kind and size, from its λ layers.
    """

    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        components: int | None = None,
        steps: Steps = "mixture",
        student: nn.Module | None = None,
        latent: LambdaSampler | None = None,
    ):
        if student is None or latent is None:
            raise SpecError("teacher averaged: `run` is missing: the folder of a distillation run")
        if student.num_states != process.num_states:
            raise SpecError(f"teacher averaged: {student.num_states} states in its run, {process.num_states} here")
        self.process, self.num_positions = process, num_positions
        self.backbone, self.head, self.parameterisation = student.backbone, student.head, student.parameterisation
        self.set_law(latent, components or latent.num_atoms or INFINITE, steps)


PUBLISHED_LAW = Uniform()
"""λ ~ U[0, 1], of all published students."""
