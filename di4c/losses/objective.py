"""The module that trains a mixture student on Di4C's losses."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from di4c.contracts import Batch, Draws, LambdaSampler, Objective, ProbeBatch, Split, Teacher
from di4c.contracts.extending import extending
from di4c.diagnostics.advice import TOLERANCE_NATS, advice
from di4c.diagnostics.atom_use import SMALL_TIME, probe_examples, unused_atoms
from di4c.diagnostics.mixture import Studied, mixture_diagnostics
from di4c.diagnostics.posterior import posterior_diagnostics
from di4c.diagnostics.warnings import mixture_warnings
from di4c.errors import SpecError
from di4c.kernels.backend import chunk_budget
from di4c.losses.checks import faults, number_of_components
from di4c.losses.full_noise import FullNoise, FullNoiseTerm
from di4c.losses.inputs import draw_inputs
from di4c.losses.loss import Di4CLoss
from di4c.losses.options import InputOptions
from di4c.losses.rollouts import Pool, Rollouts, load_or_roll_out
from di4c.mixture.student import MixtureStudent


class Di4C(Objective):
    """Trains a mixture student to do in one step what the teacher does in many.

    components is M ("all": every atom of a finite prior of λ, the mixture likelihood exact), targets N. `data`, `consistency`,
    `distillation` are the terms (at least one), `marginal` holds the λ-averaged marginals to the teacher's; `time` and `teacher_step` say how t and t − u are drawn; `distillation_time` times of its own for
    distillation; `target_mode` whether the student is in eval or train mode at u (dropout); x_u: one x_u an example, "shared" by its
    N targets, or one for "each" (the published runs; the same law and expected loss, N times the teacher's passes after its first
    sub-step, and a trunk pass for each target). reference: x_t is noised data, or, with `rollouts`, noised samples of the teacher,
    which then stand in for the data in every term. components_at_a_time: the components whose activations exist at once (null: all);
    fewer cost a second forward pass and change no number but by the masks of dropout, so that M is bounded by the features [B·M, D, H] alone.
    proposal: λ of the data and consistency terms comes from an amortised posterior in place of the prior; it is trained beside the student
    under the name `posterior` (train.optimizer.lr_multipliers) and not exported.
    full_noise: a further data term at t = 1, with more examples than the batch has: there they share one input (see FullNoiseTerm).
    bias_tolerance_nats: what more components may gain before the diagnostics suggest a larger M.
    chunk_bytes: what the logits of a chunk may take; null: a budget of the device (kernels/backend.py), the least of all ranks.
    """

    has_other_terms = False
    """Whether a subclass has a loss of its own beside these terms."""

    @extending(InputOptions, before="reference")
    def __init__(
        self,
        teacher: Teacher,
        student: MixtureStudent,
        *,
        latent: LambdaSampler,
        components: int | Literal["all"],
        reference: Literal["data", "teacher"] = "data",
        rollouts: Rollouts | None = None,
        full_noise: FullNoiseTerm | None = None,
        num_classes: int | None = None,
        open_split: Callable[[], Split] | None = None,
        bias_tolerance_nats: float = TOLERANCE_NATS,
        **of_inputs: Any,
    ):
        super().__init__()
        if (reference == "teacher") != (rollouts is not None):
            raise SpecError("objective.reference: 'teacher' goes with objective.rollouts, 'data' without")
        self.bias_tolerance_nats = bias_tolerance_nats
        self.rollouts, self.num_classes = rollouts, num_classes
        self.pool: Pool | None = None
        self.model = student
        self.options = told = InputOptions(
            latent=latent, components=number_of_components(components, latent), **of_inputs
        )
        self.posterior = None if told.proposal is None else told.proposal.posterior
        # In a tuple, so that the teacher never becomes a submodule even if a plugin makes it an nn.Module.
        self._frozen = (teacher,)
        for fault in faults(told, full_noise, teacher.process, others=self.has_other_terms):
            raise SpecError(fault)
        self.full_noise = None
        if full_noise is not None:
            key = "full_noise.components"
            self.full_noise = FullNoise(
                full_noise, number_of_components(full_noise.components, latent, key), open_split
            )
        self.draws: Draws | None = None

    @property
    def teacher(self) -> Teacher:
        return self._frozen[0]

    @property
    def loss(self) -> Di4CLoss:
        told = self.options
        return Di4CLoss(told.data, told.consistency, told.distillation, told.marginal, told.chunk_bytes)

    def device_settings(self, device: torch.device) -> dict[str, int]:
        """The budget of a chunk's logits, unless the spec says it."""
        return {} if self.options.chunk_bytes else {"chunk_bytes": chunk_budget(device)}

    def use_settings(self, settings: dict[str, int]) -> None:
        self.options = replace(self.options, chunk_bytes=self.options.chunk_bytes or settings["chunk_bytes"])

    def prepare(self, draws: Draws, *, rank: int = 0, ranks: int = 1) -> None:
        """Draws or loads the teacher's samples, where they are the reference."""
        self.draws = draws
        if self.rollouts is not None:
            self.teacher.to(draws.device)
            sampler, own = self.options.sampler, draws.child("rollouts")
            self.pool = load_or_roll_out(self.rollouts, self.teacher, sampler, self.num_classes, own, rank, ranks)

    def begin_step(self, step: int) -> None:
        if self.full_noise is not None and self.draws is not None:
            self.full_noise.begin_step(step, self.draws, self.options.latent, self.teacher.process.num_states)

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B] nats, its parts: [B]}."""
        networks = self.options, self.teacher, self.model
        others = lambda: self.loss(draw_inputs(*networks, self.examples(batch, draws), draws, step))
        if self.full_noise is None:
            return others()
        parts = self.full_noise.loss(*networks, self.pool, draws.child("full noise"), step)
        if step < self.full_noise.term.alone or not self.options.has_terms:
            return {"loss": parts["full_noise"], **parts}
        found = others()
        return found | parts | {"loss": found["loss"] + parts["full_noise"]}

    def examples(self, batch: Batch, draws: Draws) -> Batch:
        """The reference's examples of a step: the batch, or samples of the teacher."""
        if self.rollouts is None:
            return batch
        assert self.pool is not None, "prepare() comes before the first step"
        return self.pool.batch(draws)

    def diagnostics(self, batch: Batch, draws: Draws, probe_batch: ProbeBatch | None = None) -> dict[str, float]:
        """What λ carries at t = 1 (see mixture_diagnostics); of finitely many atoms, which the data use (see unused_atoms).

        Unless λ is enumerated, on data at the run's own times, what more components would gain, and the M that this suggests; where a
        posterior proposes λ, what it says instead (see posterior_diagnostics).
        """
        x_1 = self.teacher.process.prior(batch.x_0.shape[1], draws.child("x_1"))
        t_1 = torch.ones(len(x_1), device=x_1.device)
        latent = self.options.latent
        studied = Studied(self.model, latent, self.teacher.process, self.options.components_at_a_time)
        found = mixture_diagnostics(studied, x_1, t_1, batch.cond, draws)
        examples = probe_examples(latent, self.num_classes)
        if probe_batch is not None and examples:
            probe, at_a_time = probe_batch(examples), len(x_1)
            for t in (1.0, SMALL_TIME):
                found |= unused_atoms(studied, probe, draws, rows_at_a_time=at_a_time, t=t)
        if self.options.proposal is not None:
            q = latent.proposal(self.posterior(batch.x_0[:, None], x_1, t_1, batch.cond))
            return found | posterior_diagnostics(q.divergence()[:, 0])
        if self.options.components == latent.num_atoms:
            return found
        tolerance = self.bias_tolerance_nats
        return found | advice(studied, self.options.time, batch, self.options.components, draws, tolerance=tolerance)

    def warnings(self, found: Mapping[str, float], progress: float) -> dict[str, str]:
        return mixture_warnings(found, progress)
