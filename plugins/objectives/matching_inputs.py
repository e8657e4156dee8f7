"""What distribution matching looks at in one step: x_t, the student's sample x̂_0, and x_s, noise on that."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from di4c.contracts import Batch, Denoiser, Draws, ForwardProcess, Prediction, TimeSampler
from di4c.mixture.student import mixture_denoiser
from di4c.mixture.target import draw
from di4c_plugins.objectives.matching_forms import MatchingForm, Renoised
from di4c_plugins.objectives.matching_options import Matching, OnPolicy

if TYPE_CHECKING:
    from di4c_plugins.objectives.distribution_matching import DistributionMatching


def noised_start(
    objective: "DistributionMatching", batch: Batch, cond: Tensor | None, draws: Draws
) -> tuple[Tensor, Tensor]:
    """(x_t [B, D], t [B]): noised data, or states of rollouts in the share of the steps that are on policy."""
    policy, options = objective.matching.on_policy, objective.options
    if policy is not None and draws.child("policy").scalar() < policy.share:
        return rolled_out(objective, policy, cond, draws.child("rollout"))
    t, _ = (objective.matching.time or options.time).sample(draws.child("t"))
    return objective.teacher.process.corrupt(batch.x_0, t, draws.child("x_t")), t


@torch.no_grad()
def rolled_out(
    objective: "DistributionMatching", policy: OnPolicy, cond: Tensor | None, draws: Draws
) -> tuple[Tensor, Tensor]:
    """(x_t [B, D], t [B]) after some of the steps of a rollout from x_1: none up to all but the last, at random, alike on all ranks."""
    teacher, student = objective.teacher, objective.model
    process, training = teacher.process, student.training
    x, made = process.prior(teacher.num_positions, draws.child("x_1")), int(draws.child("stop").scalar() * policy.steps)
    student.eval()
    for k in range(made):
        denoiser = _denoiser(objective, policy, draws.child("denoiser", k))
        t, s = (_at(1 - n / policy.steps, x) for n in (k, k + 1))
        x = process.posterior(x, denoiser(x, t, cond), t, s, draws.child("x", k))
    student.train(training)
    return x, _at(1 - made / policy.steps, x)


def student_sample(student: Prediction, process: ForwardProcess, draws: Draws, chunk_bytes: int | None) -> Tensor:
    """x̂_0 ~ ∏_d p^{θ,d}(· | x_t; λ): [B, D]; under masked noise what x_t shows stays."""
    x_0 = draw(student, draws, chunk_bytes=chunk_bytes)[:, 0]
    return x_0 if process.mask_index is None else torch.where(student.x_t == process.mask_index, x_0, student.x_t)


def renoised(
    form: MatchingForm,
    process: ForwardProcess,
    options: Matching,
    noise_time: TimeSampler,
    student: Prediction,
    x_0: Tensor,
    t: Tensor,
    draws: Draws,
) -> Renoised:
    """k x_s for each of the student's samples."""
    copies = draws.repeat(options.renoised)
    if options.renoised > 1:
        student, x_0, t = (
            student.repeated(options.renoised),
            *(x.repeat_interleave(options.renoised, 0) for x in (x_0, t)),
        )
    share, _ = noise_time.sample(copies.child("s"))
    if options.x_s == "fresh":
        return Renoised(student, x_0, process.corrupt(x_0, share, copies.child("x_s")), share, torch.ones_like(share))
    s = share * t
    return Renoised(student, x_0, form.bridge(x_0, student.x_t, t, s, copies.child("x_s")), s, t)


def _denoiser(objective: "DistributionMatching", policy: OnPolicy, draws: Draws) -> Denoiser:
    if policy.of == "teacher":
        return objective.teacher.denoiser(draws)
    return mixture_denoiser(objective.model, objective.options.latent, draws)


def _at(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=torch.float64, device=x.device)
