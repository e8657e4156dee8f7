"""What the losses look at in one step: times, noised data, the student at t, the target drawn at u."""

import itertools
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Batch, Draws, Prediction, Teacher, evaluating
from di4c.contracts.objective import dropped_labels
from di4c.contracts.sharing import Sharing
from di4c.kernels.backend import chunk_budget
from di4c.losses.options import InputOptions
from di4c.losses.proposal import ProposedComponents
from di4c.mixture.equal_inputs import draws_masks, equal_inputs, once
from di4c.mixture.marginals import Marginals
from di4c.mixture.student import MixtureStudent
from di4c.mixture.target import KEPT_CHUNKS, draw_target


@dataclass(frozen=True)
class LossInputs:
    """One batch of examples, seen at t (student, teacher), at u (target) and, if distillation has its own times, near 0.

    t [B]; x_0 [B, D]; student: M components at x_t; teacher: at x_t, or None where unused; target: marginals of the student's N
    components at x_u, with a sample of each, target_samples [B, N, D], both without gradient, or None where consistency is not due;
    proposed: where λ is proposed, the student's are M for x_0, then M for each of the target's samples.
    target_joint [B, N, M], target_weights [N]: as in Statistics, where the consistency term has a use for them; distils: whether
    distillation is due; distilled_student (one component), distilled_teacher: at its own times, B·copies examples.
    """

    t: Tensor
    x_0: Tensor
    student: Prediction
    proposed: ProposedComponents | None = None
    teacher: Prediction | None = None
    target: Marginals | Prediction | None = None
    target_samples: Tensor | None = None
    target_joint: Tensor | None = None
    target_weights: Tensor | None = None
    distils: bool = False
    distilled_student: Prediction | None = None
    distilled_teacher: Prediction | None = None


@dataclass(frozen=True)
class Noised:
    """Examples at t, as teacher and student are asked about them: once for equal ones, where `sharing` says which are.

    teacher: its prediction, if it has been asked already.
    """

    x_t: Tensor
    t: Tensor
    cond: Tensor | None
    sharing: Sharing | None
    teacher: Prediction | None


def draw_inputs(
    options: InputOptions, teacher: Teacher, student: MixtureStudent, batch: Batch, draws: Draws, step: int = 0
) -> LossInputs:
    """The inputs of a batch; `step` counts for a proposal alone. Which networks are called depends on draws shared by all ranks only, never on an example's t.

    Where λ is enumerated, examples with equal x_t, t and label share one evaluation of teacher and student, unless dropout is active.
    """
    asked = _Asked(options, teacher, student)
    cond = dropped_labels(batch.cond, options.label_dropout, draws)
    size = options.teacher_step.draw(draws.child("step size")) if options.teacher_step is not None else 0.0
    t, interval = options.time.sample(draws.child("t"), size)
    x_t = teacher.process.corrupt(batch.x_0, t, draws.child("x_t"))
    consistency, distillation = options.consistency, options.distillation
    own_times = options.distillation_time is not None
    targets = (
        consistency is not None and consistency.due(interval) and draws.child("far").scalar() < consistency.probability
    )
    distils = distillation is not None and (own_times or distillation.due(interval))
    found = {"t": t, "x_0": batch.x_0, "distils": distils}
    sharing = equal_inputs(x_t, t, cond) if options.same_lambda and not draws_masks(student) else None
    compared = options.marginal is not None or (options.data is not None and "kl" in options.data.estimator.needs)
    if compared or (distils and not own_times):
        found["teacher"] = once(teacher.predict, sharing, x_t, t, cond)
    noised = Noised(x_t, t, cond, sharing, found.get("teacher"))
    if options.proposal is None:
        lam, log_weights = options.latent.weighted(options.components, draws.child("lambda"))
    if targets:
        u, shared = options.teacher_step.earlier(t, size), lam if options.needs_target_joint else None
        found |= asked.target(noised, u, draws.child("target"), shared)
    if distils and own_times:
        found |= asked.distilled_pair(batch.x_0, cond, draws.child("near"))
    if options.proposal is not None:
        samples = torch.cat([batch.x_0[:, None], *([found["target_samples"]] if targets else [])], 1)
        q = options.latent.proposal(options.proposal.posterior(samples, x_t, t, cond))  # all samples' in one call
        found["proposed"] = options.proposal.proposed(q, options.components, draws.child("proposal"), step)
        lam, log_weights = found["proposed"].lam, None
    # Last, so that the student's graph is not yet held while the target is read.
    at_a_time = options.components_at_a_time
    seen = once(student.predict, sharing, x_t, t, cond, lam, log_weights=log_weights, at_a_time=at_a_time)
    return LossInputs(student=seen, **found)


@dataclass(frozen=True)
class _Asked:
    """Teacher and student, and what is asked of them beside their predictions at t."""

    options: InputOptions
    teacher: Teacher
    student: MixtureStudent

    @torch.no_grad()
    def target(self, noised: Noised, u: Tensor, draws: Draws, shared: Tensor | None) -> dict:
        """x_u ~ p^ψ_{u|t}, then the student's N components at x_u and a sample x_0 of each: no gradient reaches the target.

        shared: λ [B, M, L] of the student at t, which stand in for draws of the target's own.
        """
        options, student = self.options, self.student
        copies = options.targets if options.x_u == "each" else 1
        several = draws.repeat(copies) if copies > 1 else draws
        x_u = self.earlier_states(noised, u, several, copies)
        lam, log_weights = options.latent.weighted(options.targets, draws.child("lambda"))
        lam = (lam if shared is None else shared).reshape(len(x_u), -1, lam.shape[-1])
        with evaluating(student) if options.target_mode == "eval" else nullcontext():
            target = student.predict(
                x_u, u.repeat_interleave(copies), _copied(noised.cond, copies), lam, log_weights if copies == 1 else None,
                at_a_time=options.components_at_a_time,
            )  # fmt: skip
            chunk_bytes = options.chunk_bytes or chunk_budget(x_u.device)
            found = draw_target(
                target, several.child("x_0"), chunk_bytes=chunk_bytes, score=options.needs_target_joint, copies=copies,
                keep_bytes=KEPT_CHUNKS * chunk_bytes if "kl" in options.consistency.estimator.needs else 0,
                copy_weights=log_weights.exp() if copies > 1 else None,
            )  # fmt: skip
        weights = log_weights.exp() if options.targets == options.latent.num_atoms else None
        return {
            "target": found.marginals, "target_samples": found.samples, "target_joint": found.joint, "target_weights": weights,
        }  # fmt: skip

    def earlier_states(self, noised: Noised, u: Tensor, draws: Draws, copies: int) -> Tensor:
        """x_u by the teacher's sampler in `substeps` steps from x_t, `copies` of them an example, b major: [B·copies, D]."""
        teacher, sampler = self.teacher, self.options.sampler
        with torch.inference_mode(False):  # a tensor made in inference mode does not count what is written to it
            start = x_u = noised.x_t.repeat_interleave(copies, 0)
        written = start._version  # a sampler may write into x_t: then its prediction is another
        t, u = (x.repeat_interleave(copies) for x in (noised.t, u))
        labels_of_copies = _copied(noised.cond, copies)
        asked = teacher.denoiser(draws.child("teacher"))
        draws_nothing, calls = asked == teacher.predict, 0

        def denoiser(x: Tensor, time: Tensor, labels: Tensor | None) -> Prediction:
            nonlocal calls
            calls += 1
            if not draws_nothing or x is not start or start._version != written:
                return asked(x, time, labels)
            # All copies are still x_t: the teacher need be asked once at most.
            if time is t and labels is labels_of_copies:
                found = noised.teacher or once(teacher.predict, noised.sharing, noised.x_t, noised.t, noised.cond)
            else:
                found = teacher.predict(noised.x_t, time[::copies], None if labels is None else labels[::copies])
            found = found.for_examples()
            return found if copies == 1 else found.repeated(copies)

        grid = torch.linspace(0, 1, self.options.teacher_step.substeps + 1, dtype=t.dtype).tolist()
        for k, (begin, end) in enumerate(itertools.pairwise(grid)):
            calls, now, then = 0, t + (u - t) * begin if k else t, t + (u - t) * end
            x_u = sampler.step(denoiser, x_u, now, then, labels_of_copies, draws.child("x_u", k))
            for _ in range(sampler.evaluations - calls):
                asked(x_u, now, labels_of_copies)
        return x_u

    def distilled_pair(self, x_0: Tensor, cond: Tensor | None, draws: Draws) -> dict:
        """Student (one component each) and teacher on `distillation_copies` noised copies of every example at times of their own."""
        copies = self.options.distillation_copies
        several, labels = draws.repeat(copies), _copied(cond, copies)
        t, _ = self.options.distillation_time.sample(several.child("t"))
        x_t = self.teacher.process.corrupt(x_0.repeat_interleave(copies, 0), t, several.child("x_t"))
        lam, _ = self.options.latent.weighted(1, several.child("lambda"))
        return {
            "distilled_student": self.student.predict(x_t, t, labels, lam),
            "distilled_teacher": self.teacher.predict(x_t, t, labels),
        }


def _copied(cond: Tensor | None, copies: int) -> Tensor | None:
    return None if cond is None else cond.repeat_interleave(copies)
