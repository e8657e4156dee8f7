"""What the losses look at in one step: times, noised data, the student at t, the target drawn at u."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import repeat
from torch import Tensor

from di4c.algorithm.mixture import KEPT_CHUNKS, Marginals, draw_target
from di4c.algorithm.student import MixtureStudent
from di4c.algorithm.times import StepLaw
from di4c.contracts import CHUNK_BYTES, Batch, Draws, LambdaSampler, Prediction, Sampler, Teacher, TimeLaw, placed


@dataclass(frozen=True)
class Scene:
    """One batch of examples, seen at t (student, teacher), at u (target) and, if distillation has its own times, near 0.

    t [B]; x_0 [B, D]; student: M components at x_t; teacher: at x_t, or None where unused; target: marginals of the student's N
    components at x_u, with a sample of each, target_samples [B, N, D], both without gradient, or None where no t of the batch is far;
    target_joint [B, N, M], target_weights [N]: as in Statistics, where the consistency term has a use for them; near: whether any t of
    the batch may be in the distillation region.
    """

    t: Tensor
    x_0: Tensor
    student: Prediction
    teacher: Prediction | None = None
    target: Marginals | Prediction | None = None
    target_samples: Tensor | None = None
    target_joint: Tensor | None = None
    target_weights: Tensor | None = None
    near: bool = False
    near_student: Prediction | None = None
    near_teacher: Prediction | None = None


@dataclass(frozen=True)
class SceneLaw:
    """The options of Di4C that say what is drawn; see objective.Di4C. far_above, near_below: None switches the term off.

    needs_target_joint: the target's λ are those of the student at t, and the target scores its samples under all of them.
    """

    latent: LambdaSampler
    sampler: Sampler
    components: int
    time: TimeLaw
    targets: int = 0
    teacher_step: StepLaw | None = None
    far_above: float | None = None
    far_probability: float = 1.0
    near_below: float | None = None
    near_time: TimeLaw | None = None
    near_copies: int = 1
    target_mode: str = "eval"
    x_u: Literal["shared", "each"] = "shared"
    label_dropout: float = 0.0
    needs_teacher: bool = False
    needs_marginals: bool = False
    needs_target_joint: bool = False
    components_at_a_time: int | None = None
    chunk_bytes: int = CHUNK_BYTES


def draw_scene(law: SceneLaw, teacher: Teacher, student: MixtureStudent, batch: Batch, draws: Draws) -> Scene:
    """A Scene for the batch. Which networks are called depends on draws shared by all ranks only, never on an example's t."""
    cond = dropped_labels(batch.cond, law.label_dropout, draws)
    step = law.teacher_step.draw(draws.child("step size")) if law.teacher_step is not None else 0.0
    t, (low, high) = law.time.sample(draws.child("t"), step)
    x_t = teacher.process.corrupt(batch.x_0, t, draws.child("x_t"))
    far = law.far_above is not None and high >= law.far_above and draws.child("far").scalar() < law.far_probability
    near = law.near_below is not None and (law.near_time is not None or low < law.near_below)
    scene = {"t": t, "x_0": batch.x_0, "near": near}
    if law.needs_teacher or (near and law.near_time is None):
        scene["teacher"] = teacher.predict(x_t, t, cond)
    lam, log_weights = _components(law.latent, law.components, draws.child("lambda"))
    if far:
        u, shared = law.teacher_step.earlier(t, step), lam if law.needs_target_joint else None
        scene |= _target(law, teacher, student, x_t, t, u, cond, draws.child("target"), shared, scene.get("teacher"))
    if near and law.near_time is not None:
        scene |= _near_pair(law, teacher, student, batch.x_0, cond, draws.child("near"))
    # Last, so that the student's graph is not yet held while the target is read.
    return Scene(student=student.predict(x_t, t, cond, lam, log_weights, at_a_time=law.components_at_a_time), **scene)


@torch.no_grad()
def _target(
    law: SceneLaw, teacher: Teacher, student: MixtureStudent, x_t: Tensor, t: Tensor, u: Tensor, cond: Tensor | None, draws: Draws,
    shared: Tensor | None, known: Prediction | None,
) -> dict:
    """x_u ~ p^ψ_{u|t}, then the student's N components at x_u and a sample x_0 of each: no gradient reaches the target.

    shared: λ [B, M, L] of the student at t, which stand in for draws of the target's own. known: the teacher at x_t, if it has been asked.
    """
    copies = law.targets if law.x_u == "each" else 1
    x_u = _earlier_states(law, teacher, x_t, t, u, cond, draws, copies, known)
    lam, log_weights = _components(law.latent, law.targets, draws.child("lambda"))
    lam = (lam if shared is None else shared).reshape(len(x_u), -1, lam.shape[-1])
    training = student.training
    student.train(training and law.target_mode == "train")
    target = student.predict(
        x_u, u.repeat_interleave(copies), _copied(cond, copies), lam, log_weights if copies == 1 else None,
        at_a_time=law.components_at_a_time,
    )  # fmt: skip
    found = draw_target(
        target,
        (draws.repeat(copies) if copies > 1 else draws).child("x_0"),
        chunk_bytes=law.chunk_bytes,
        keep_bytes=KEPT_CHUNKS * law.chunk_bytes if law.needs_marginals else 0,
        copies=copies,
        copy_weights=log_weights.exp() if copies > 1 else None,
        score=law.needs_target_joint,
    )
    student.train(training)
    weights = log_weights.exp() if law.targets == law.latent.num_atoms else None
    return {
        "target": found.marginals, "target_samples": found.samples, "target_joint": found.joint, "target_weights": weights,
    }  # fmt: skip


def _earlier_states(
    law: SceneLaw, teacher: Teacher, x_t: Tensor, t: Tensor, u: Tensor, cond: Tensor | None, draws: Draws, copies: int,
    known: Prediction | None,
) -> Tensor:
    """x_u by the teacher's sampler in `substeps` steps from x_t, `copies` of them an example, b major: [B·copies, D]."""
    start = x_u = x_t.repeat_interleave(copies, 0)
    t, u, labels_of_copies = t.repeat_interleave(copies), u.repeat_interleave(copies), _copied(cond, copies)
    draws = draws.repeat(copies) if copies > 1 else draws

    asked = teacher.denoiser(draws.child("teacher"))
    draws_nothing = asked == teacher.predict

    def denoiser(x: Tensor, time: Tensor, labels: Tensor | None) -> Prediction:
        nonlocal calls
        calls += 1
        if not draws_nothing or x is not start:
            return asked(x, time, labels)
        # All copies are still x_t: the teacher need be asked once at most.
        if known is not None and time is t and labels is labels_of_copies:
            return known if copies == 1 else known.repeated(copies)
        once = teacher.predict(x_t, time[::copies], None if labels is None else labels[::copies])
        return once if copies == 1 else once.repeated(copies)

    grid = torch.linspace(0, 1, law.teacher_step.substeps + 1, dtype=t.dtype).tolist()
    for k, (begin, end) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        calls, now, then = 0, t + (u - t) * begin if k else t, t + (u - t) * end
        x_u = law.sampler.step(denoiser, x_u, now, then, labels_of_copies, draws.child("x_u", k))
        for _ in range(law.sampler.evaluations - calls):
            asked(x_u, now, labels_of_copies)
    return x_u


def _near_pair(
    law: SceneLaw, teacher: Teacher, student: MixtureStudent, x_0: Tensor, cond: Tensor | None, draws: Draws
) -> dict:
    """Student (one component each) and teacher on `near_copies` noised copies of every example at times of their own."""
    copies = draws.repeat(law.near_copies)
    again = repeat(x_0, "b d -> (b c) d", c=law.near_copies)
    labels = None if cond is None else repeat(cond, "b -> (b c)", c=law.near_copies)
    t, _ = law.near_time.sample(copies.child("t"))
    x_t = teacher.process.corrupt(again, t, copies.child("x_t"))
    lam = law.latent.sample(1, copies.child("lambda")).to(x_0.device)
    return {"near_student": student.predict(x_t, t, labels, lam), "near_teacher": teacher.predict(x_t, t, labels)}


def _copied(cond: Tensor | None, copies: int) -> Tensor | None:
    return None if cond is None else cond.repeat_interleave(copies)


def dropped_labels(cond: Tensor | None, probability: float, draws: Draws) -> Tensor | None:
    """cond [B] with each label replaced by −1 (no label) with the given probability."""
    if cond is None or not probability:
        return cond
    return torch.where(draws.child("label dropout").uniform() < probability, -1, cond)


def _components(latent: LambdaSampler, number: int, draws: Draws) -> tuple[Tensor, Tensor]:
    """λ [B, M, L] and the log-weights [M] of its draws, on the draws' device."""
    return placed(latent.sample(number, draws), draws.device), placed(latent.log_weights(number), draws.device)
