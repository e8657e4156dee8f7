"""What distribution matching looks at in one step: x_t, the student's sample x̂_0, and x_s, noise on that."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from di4c.contracts import Batch, Denoiser, Draws, Prediction, evaluating
from di4c.mixture.student import mixture_denoiser
from di4c.mixture.target import draw
from di4c_plugins.objectives.matching_forms import Renoised
from di4c_plugins.objectives.matching_options import OnPolicy
from di4c_plugins.times.samplers import UniformTime

if TYPE_CHECKING:
    from di4c_plugins.objectives.distribution_matching import DistributionMatching

EVEN = UniformTime(0.05, 1.0)
"""s, or s/t, where a spec does not say: the least noise is left out, where c(s) is largest and the critic learns least."""


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
    process = teacher.process
    x, made = process.prior(teacher.num_positions, draws.child("x_1")), int(draws.child("stop").scalar() * policy.steps)
    with evaluating(student):
        for k in range(made):
            denoiser = _denoiser(objective, policy, draws.child("denoiser", k))
            t, s = (_at(1 - n / policy.steps, x) for n in (k, k + 1))
            x = process.posterior(x, denoiser(x, t, cond), t, s, draws.child("x", k))
    return x, _at(1 - made / policy.steps, x)


def student_sample(objective: "DistributionMatching", student: Prediction, draws: Draws) -> Tensor:
    """x̂_0 ~ ∏_d p^{θ,d}(· | x_t; λ): [B, D]; under masked noise what x_t shows stays."""
    x_0 = draw(student, draws, chunk_bytes=objective.options.chunk_bytes)[:, 0]
    mask = objective.teacher.process.mask_index
    return x_0 if mask is None else torch.where(student.x_t == mask, x_0, student.x_t)


def renoised(objective: "DistributionMatching", student: Prediction, x_0: Tensor, t: Tensor, draws: Draws) -> Renoised:
    """k x_s for each of the student's samples."""
    told, copies = objective.matching, draws.repeat(objective.matching.renoised)
    if told.renoised > 1:
        student = student.repeated(told.renoised)
        x_0, t = (x.repeat_interleave(told.renoised, 0) for x in (x_0, t))
    share, _ = (told.noise_time or EVEN).sample(copies.child("s"))
    if told.x_s == "fresh":
        x_s = objective.teacher.process.corrupt(x_0, share, copies.child("x_s"))
        return Renoised(student, x_0, x_s, share, torch.ones_like(share))
    s = share * t
    return Renoised(student, x_0, objective.form.bridge(x_0, student.x_t, t, s, copies.child("x_s")), s, t)


def _denoiser(objective: "DistributionMatching", policy: OnPolicy, draws: Draws) -> Denoiser:
    if policy.of == "teacher":
        return objective.teacher.denoiser(draws)
    return mixture_denoiser(objective.model, objective.options.latent, draws)


def _at(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=torch.float64, device=x.device)
