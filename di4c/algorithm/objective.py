"""Di4C's three losses in the paper's symbols, and the module that trains on them; for all systems alike.

    distillation   E_{x_δ} KL( p^ψ_{0|δ} ‖ p^θ_{0|δ} )                        near t = 0, where the teacher is right
    consistency    E_{x_t} KL( p^θ_{0|u} ∘ p^ψ_{u|t} ‖ p^θ_{0|t} )            elsewhere
    data           E_{x_0, x_t} −log p^θ_{0|t}(x_0 | x_t)

(Hayakawa et al., ICML 2025, sections 3.3 and 4.) What is drawn for them is in scene.py, how −log p^θ is estimated in the
loss-estimator plugins, and the sums over positions and components in mixture.py.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from di4c.algorithm.advice import TOLERANCE_NATS, advice
from di4c.algorithm.atom_use import census_examples, unused_atoms
from di4c.algorithm.diagnostics import effective_components, mixture_diagnostics
from di4c.algorithm.every_sample import every_sample
from di4c.algorithm.mixture import Marginals, Query, statistics
from di4c.algorithm.rollouts import Rollouts, load_or_roll_out
from di4c.algorithm.scene import Scene, SceneLaw, draw_scene
from di4c.algorithm.student import MixtureStudent
from di4c.algorithm.terms import (
    ConsistencyTerm,
    DataTerm,
    DistillationTerm,
    check_terms,
    number_of_components,
    scene_options,
)
from di4c.algorithm.times import StepLaw
from di4c.contracts import CHUNK_BYTES, Batch, Draws, LambdaSampler, Objective, Sampler, Statistics, Teacher, TimeLaw
from di4c.errors import SpecError


@dataclass(frozen=True)
class Di4CLoss:
    """The weighted sum of the three terms on a Scene; a term that is None is left out."""

    data: DataTerm | None = None
    consistency: ConsistencyTerm | None = None
    distillation: DistillationTerm | None = None
    chunk_bytes: int = CHUNK_BYTES
    fused: bool | None = None

    def __call__(self, scene: Scene) -> dict[str, Tensor]:
        """{"loss": [B] nats, and its parts "data", "consistency", "distillation", …: [B], weighted as they enter it}."""
        parts: dict[str, Tensor] = {}
        found = self._statistics(scene)
        if "data" in found:
            parts |= self.data_loss(found["data"], scene.t)
        if "consistency" in found:
            parts |= self.consistency_loss(found["consistency"], scene.t)
        if "distillation" in found:
            parts["distillation"] = self.distillation_loss(found["distillation"], scene)
        terms = [parts[name] for name in ("data", "consistency", "distillation") if name in parts]
        total = sum(terms) if terms else _nothing(scene)
        effective = {
            f"{name}_effective_components": effective_components(statistics) for name, statistics in found.items()
            if statistics.joint is not None
        }  # fmt: skip
        return {name: value.to(scene.student.wide) for name, value in {"loss": total, **parts, **effective}.items()}

    def data_loss(self, statistics: Statistics, t: Tensor) -> dict[str, Tensor]:
        """a(t)·correlated + marginal: −log p^θ_{0|t}(x_0 | x_t), [B] nats, and the two parts unweighted.

        With the control variate the teacher's marginals stand in for the data's: a bias where the teacher is not exact.
        """
        correlated, marginal = self.data.estimator(statistics)
        data = self.data.weight * (self.data.gate(t).to(correlated) * correlated + marginal)
        return {"data": data, "data_correlated": correlated, "data_marginal": marginal}

    def consistency_loss(self, statistics: Statistics, t: Tensor) -> dict[str, Tensor]:
        """KL( p^θ_{0|u} ∘ p^ψ_{u|t} ‖ p^θ_{0|t} ) up to a constant in θ: [B] nats, and its two parts unweighted."""
        correlated, marginal = self.consistency.estimator(statistics)
        weight = self.consistency.weight / self.consistency.probability * (t >= self.consistency.above).to(correlated)
        return {
            "consistency": weight * (correlated + marginal),
            "consistency_correlated": correlated,
            "consistency_marginal": marginal,
        }

    def distillation_loss(self, statistics: Statistics, scene: Scene) -> Tensor:
        """(1/M) Σ_m Σ_d KL( p^{ψ,d}_{0|δ} ‖ p^{θ,d}_{0|δ}(·; λ_m) ), an upper bound of the KL by convexity: [B] nats."""
        surrogate = statistics.componentwise_kl
        if scene.near_student is not None:  # times of its own: B·copies examples of one component
            return self.distillation.weight * surrogate.unflatten(0, (len(scene.t), -1)).mean(1)
        near = scene.t <= self.distillation.below if self.distillation.below_inclusive else scene.t < self.distillation.below
        return self.distillation.weight * near.to(surrogate) * surrogate

    def _statistics(self, scene: Scene) -> dict[str, Statistics]:
        """The sums each term needs: one pass over the student at t, one more where distillation has its own times."""
        queries: dict[str, Query] = {}
        if self.data is not None:
            certain = scene.x_0.new_zeros(len(scene.x_0), 1) if "log_law" in self.data.estimator.needs else None
            queries["data"] = Query(self.data.estimator.needs, scene.x_0[:, None], scene.teacher, log_law=certain)
        if scene.target is not None:
            queries["consistency"] = self._consistency_query(scene)
        componentwise = frozenset({"componentwise_kl"})
        if scene.near and scene.near_student is None:
            queries["distillation"] = Query(componentwise, None, scene.teacher)
        found = statistics(scene.student, list(queries.values()), chunk_bytes=self.chunk_bytes, fused=self.fused)
        named = dict(zip(queries, found, strict=True))
        if scene.near and scene.near_student is not None:
            query = Query(componentwise, None, scene.near_teacher)
            named["distillation"] = statistics(scene.near_student, [query], chunk_bytes=self.chunk_bytes, fused=self.fused)[0]
        return named

    def _consistency_query(self, scene: Scene) -> Query:
        """The target's samples, or every x with its law where the estimator asks for it."""
        needs, target = self.consistency.estimator.needs, scene.target
        if "log_law" not in needs:
            return Query(needs, scene.target_samples, target, scene.target_weights, scene.target_joint)
        prediction = target.prediction if isinstance(target, Marginals) else target
        samples, log_law = every_sample(prediction, chunk_bytes=self.chunk_bytes)
        return Query(needs, samples, target, log_law=log_law)


def _nothing(scene: Scene) -> Tensor:
    """The loss where no term is due, 0 with a gradient of 0: [B]. A step that has none is one like all others for the engine."""
    return scene.t.new_zeros(len(scene.t)) + 0 * scene.student.features.sum()


class Di4C(Objective):
    """Trains a mixture student to do in one step what the teacher does in many.

    components is M ("all": every atom of a finite law of λ, the mixture likelihood exact), targets N. `data`, `consistency`,
    `distillation` are the terms (at least one); `time` and `teacher_step` the laws of t and t − u; `near_time` times of its own for
    distillation; `target_mode` whether the student is in eval or train mode at u (dropout); x_u: one x_u an example, "shared" by its
    N targets, or one for "each" (the published runs; the same law and expected loss, N times the teacher's passes after its first
    sub-step, and a trunk pass for each target). reference: x_t is noised data, or, with `rollouts`, noised samples of the teacher,
    which then stand in for the data in every term. components_at_a_time: the components whose activations exist at once (null: all);
    fewer cost a second forward pass and change no number, so that M is bounded by the features [B·M, D, H] alone.
    bias_tolerance_nats: what more components may gain before the diagnostics suggest a larger M.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: MixtureStudent,
        *,
        latent: LambdaSampler,
        sampler: Sampler,
        components: int | Literal["all"],
        time: TimeLaw,
        targets: int = 0,
        teacher_step: StepLaw | None = None,
        data: DataTerm | None = None,
        consistency: ConsistencyTerm | None = None,
        distillation: DistillationTerm | None = None,
        near_time: TimeLaw | None = None,
        near_copies: int = 1,
        target_mode: str = "eval",
        x_u: Literal["shared", "each"] = "shared",
        label_dropout: float = 0.0,
        reference: Literal["data", "teacher"] = "data",
        rollouts: Rollouts | None = None,
        num_classes: int | None = None,
        components_at_a_time: int | None = None,
        bias_tolerance_nats: float = TOLERANCE_NATS,
        chunk_bytes: int = CHUNK_BYTES,
        fused: bool | None = None,
    ):
        super().__init__()
        if (reference == "teacher") != (rollouts is not None):
            raise SpecError("objective.reference: 'teacher' goes with objective.rollouts, 'data' without")
        self.bias_tolerance_nats = bias_tolerance_nats
        self.rollouts, self.num_classes, self.pool = rollouts, num_classes, None
        self.model = student
        # In a tuple, so that the teacher never becomes a submodule even if a plugin makes it an nn.Module.
        self._frozen = (teacher,)
        self.loss = Di4CLoss(data, consistency, distillation, chunk_bytes, fused)
        self.law = SceneLaw(
            **scene_options(data, consistency, distillation), latent=latent, sampler=sampler,
            components=number_of_components(components, latent), targets=targets, time=time, teacher_step=teacher_step,
            near_time=near_time, near_copies=near_copies, target_mode=target_mode, x_u=x_u, label_dropout=label_dropout,
            components_at_a_time=components_at_a_time, chunk_bytes=chunk_bytes,
        )  # fmt: skip
        check_terms(self.law, data, consistency, distillation)

    @property
    def teacher(self) -> Teacher:
        return self._frozen[0]

    def prepare(self, draws: Draws, *, rank: int = 0, ranks: int = 1) -> None:
        """Draws or loads the teacher's samples, where they are the reference."""
        if self.rollouts is not None:
            self.teacher.to(draws.device)
            self.pool = load_or_roll_out(
                self.rollouts, self.teacher, self.law.sampler, self.num_classes, draws.child("rollouts"), rank, ranks
            )

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B] nats, its parts: [B]}."""
        if self.rollouts is not None:
            assert self.pool is not None, "prepare() comes before the first step"
            batch = self.pool.batch(draws)
        return self.loss(draw_scene(self.law, self.teacher, self.model, batch, draws))

    @property
    def census_examples(self) -> int:
        return census_examples(self.law.latent, self.num_classes)

    def diagnostics(self, batch: Batch, draws: Draws, census: Batch | None = None) -> dict[str, float]:
        """What λ carries at t = 1 (see mixture_diagnostics), and which of its atoms the data use, if they are finitely many; on data
        at the run's own times, unless λ is enumerated, what more components would gain, and the M that this suggests."""
        x_1 = self.teacher.process.prior(batch.x_0.shape[1], draws.child("x_1"))
        t_1 = torch.ones(len(x_1), device=x_1.device)
        at_a_time, fused = self.law.components_at_a_time, self.loss.fused
        found = mixture_diagnostics(self.model, self.law.latent, x_1, t_1, batch.cond, draws, at_a_time=at_a_time, fused=fused)
        if census is not None and self.census_examples:
            found["unused_atoms"] = unused_atoms(
                self.model, self.law.latent, self.teacher.process, census, draws,
                rows_at_a_time=len(x_1), at_a_time=at_a_time, fused=fused,
            )  # fmt: skip
        if self.law.components == self.law.latent.num_atoms:
            return found
        return found | advice(
            self.model, self.law.latent, self.teacher.process, self.law.time, batch, self.law.components, draws,
            tolerance=self.bias_tolerance_nats, at_a_time=at_a_time, fused=fused,
        )  # fmt: skip
