"""Distribution matching with λ: a critic learns the student's own samples, and the student is drawn to the teacher's law."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from di4c.contracts import Backbone, Batch, Draws, LambdaSampler, Prediction, Teacher, placed
from di4c.contracts.extending import extending
from di4c.contracts.objective import ProbeBatch, dropped_labels
from di4c.errors import SpecError
from di4c.losses.loss import TERMS
from di4c.losses.objective import Di4C
from di4c.mixture.student import MixtureStudent
from di4c_plugins.objectives.matching_diagnostics import matching_warnings, sample_entropies
from di4c_plugins.objectives.matching_forms import Renoised, form_of, matching_loss
from di4c_plugins.objectives.matching_inputs import noised_start, renoised, student_sample
from di4c_plugins.objectives.matching_options import Critic, Matching, Ramp

ALSO = (*TERMS, "full_noise")
"""Di4C's parts that are terms of its loss."""


def fresh_critic(teacher: Teacher) -> Backbone:
    """A network that starts as the teacher's: a copy, or adapters named `critic` on weights that the teacher shares (student.lora)."""
    on_shared_base = getattr(teacher.backbone, "with_adapter", None)
    return teacher.student_backbone() if on_shared_base is None else on_shared_base("critic")


class DistributionMatching(Di4C):
    """Draws a student's own samples to the teacher's law, λ in use, beside any of Di4C's terms (none is needed).

        matching   E c(s)·Σ_d Σ_v p^{θ,d}(v | x_t; λ) ρ^d(v)     its gradient is that of Σ_s w(s) KL(p^θ_s ‖ p^ψ_s)
        critic     E of the process's bound on −log p^φ(x̂_0), x̂_0 ~ p^θ(· | x_t; λ), at the same x_s

    ρ, c and w are the process's (matching_forms.py). λ is drawn from its law, one an example; no gradient passes through x̂_0, φ or ψ.
    The gradient of one loss does not reach the other's parameters, so that one backward pass trains both; the critic's follow the
    entries for `critic` in train.optimizer. A student that makes nothing of λ does not learn to here: let it start from one that Di4C
    has trained (student.start).

    ramps: {term: factor on its weight over the steps}.
    """

    has_other_terms = True

    @extending(Di4C)
    def __init__(
        self,
        teacher: Teacher,
        student: MixtureStudent,
        *,
        latent: LambdaSampler,
        matching: Matching,
        critic: Critic | None = None,
        ramps: dict[str, Ramp] | None = None,
        **of_di4c: Any,
    ):
        super().__init__(teacher, student, latent=latent, **of_di4c)
        self.form = form_of(teacher.process)
        if matching.x_s == "bridge" and not self.form.bridges:
            name = type(teacher.process).__name__
            raise SpecError(f"objective.matching.x_s: 'bridge' is for masked processes; for {name} take fresh")
        critic = critic or Critic()
        self.matching, self.schedule, self.ramps = matching, critic, dict(ramps or {})
        known = ("matching", *ALSO)
        for name in self.ramps:
            if name not in known:
                raise SpecError(f"objective.ramps: no term {name!r}; terms: {', '.join(known)}")
        self.critic = critic.backbone or fresh_critic(teacher)

    @property
    def has_terms(self) -> bool:
        """Whether any of Di4C's own terms stands beside the matching."""
        return self.options.has_terms or self.full_noise is not None

    def apart(self, name: str) -> bool:
        return name.startswith("critic.") or ".critic." in name

    def rests(self, step: int) -> bool:
        return self.schedule.alone(step)

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B] nats, "matching", "critic" and Di4C's parts: [B]}; the parts as they enter the loss.

        Where the student rests its part of the loss has the weight 0, and Di4C's terms are left out.
        """
        batch, resting = self.examples(batch, draws), self.rests(step)
        seen = self._seen(batch, draws.child("matching"))
        factor = 0.0 if resting else self.matching.weight * self._factor("matching", step)
        parts = {"matching": factor * self.matching_loss(seen), "critic": self.critic_loss(seen)}
        total = parts["matching"] + parts["critic"]
        if self.has_terms and not resting:
            found = super().forward(batch, draws, step)
            found.pop("loss")
            for name in ALSO:
                if name in found:
                    found[name] = self._factor(name, step) * found[name]
                    total = total + found[name]
            parts |= found
        return {"loss": total, **parts}

    def matching_loss(self, seen: Renoised) -> Tensor:
        """Σ_d Σ_v p^{θ,d}(v | x_t; λ) ρ^d(v) weighted by c(s), mean over the x_s of an example: [B] nats."""
        told, chunk_bytes = self.matching, self.options.chunk_bytes
        return self._mean(matching_loss(self.form, seen, most=told.most, clip=told.clip, chunk_bytes=chunk_bytes))

    def critic_loss(self, seen: Renoised) -> Tensor:
        """The process's bound on −log p^φ(x̂_0), at the x_s of each example: [B] nats."""
        bound = self.teacher.process.nelbo(seen.x_0, seen.x_s, seen.s, seen.critic)
        return self._mean(seen.span.to(bound) * bound)

    def diagnostics(self, batch: Batch, draws: Draws, probe_batch: ProbeBatch | None = None) -> dict[str, float]:
        """Di4C's; besides "critic_nats", "teacher_nats", what the student's samples cost by critic and teacher, and sample entropies."""
        found = super().diagnostics(batch, draws, probe_batch)
        seen = self._seen(batch, draws.child("matching"))
        by_teacher = seen.span * self.teacher.process.nelbo(seen.x_0, seen.x_s, seen.s, seen.teacher)
        x_1 = self.teacher.process.prior(batch.x_0.shape[1], draws.child("matching", "x_1"))
        t_1 = torch.ones(len(x_1), dtype=torch.float64, device=x_1.device)
        lam = placed(self.options.latent.sample(1, draws.child("matching", "lambda")), draws.device)
        student, teacher = self.model.predict(x_1, t_1, batch.cond, lam), self.teacher.predict(x_1, t_1, batch.cond)
        return {
            **found,
            "critic_nats": float(self.critic_loss(seen).detach().mean()),
            "teacher_nats": float(by_teacher.detach().mean()),
            **sample_entropies(student, teacher, draws.child("matching", "entropy")),
        }

    def warnings(self, found: Mapping[str, float], progress: float) -> dict[str, str]:
        return super().warnings(found, progress) | matching_warnings(found)

    def _seen(self, batch: Batch, draws: Draws) -> Renoised:
        """The student's samples, with noise on them, and what critic and teacher say of them."""
        options, process = self.options, self.teacher.process
        cond = dropped_labels(batch.cond, options.label_dropout, draws)
        x_t, t = noised_start(self, batch, cond, draws)
        lam = placed(options.latent.sample(1, draws.child("lambda")), draws.device)
        student = self.model.predict(x_t, t, cond, lam)
        if process.mask_index is not None:
            student = student.without(process.mask_index)
        x_0 = student_sample(self, student, draws.child("x_0"))
        seen = renoised(self, student, x_0, t, draws)
        labels = None if cond is None else cond.repeat_interleave(self.matching.renoised)
        features = self.critic(seen.x_s, seen.s, labels)
        critic = Prediction(features, seen.x_s, self.critic.readout, self.teacher.parameterisation, process.num_states)
        return replace(seen, critic=critic, teacher=self.teacher.predict(seen.x_s, seen.s, labels))

    def _factor(self, term: str, step: int) -> float:
        return self.ramps[term](step) if term in self.ramps else 1.0

    def _mean(self, values: Tensor) -> Tensor:
        """Over the x_s of an example: [B] from [B·k]."""
        return values.unflatten(0, (-1, self.matching.renoised)).mean(1)
