"""The real loss of a trained student of the digits: its gradient under repeated draws of λ."""

import math

from torch import Tensor

from di4c.contracts import Batch, Draws, LambdaSampler, LossEstimator, Sampler, Teacher
from di4c.evaluation.repeated import gradients as repeated_gradients
from di4c.losses.inputs import draw_inputs
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, Gate, TeacherStep
from di4c.mixture.student import MixtureStudent
from di4c_plugins.times.samplers import TimeGrid
from estimator_cases.enumerated import gradient_errors


def objective(
    system: tuple[Teacher, MixtureStudent, Sampler],
    latent: LambdaSampler,
    components: int,
    *,
    t: list[float],
    data: LossEstimator | None = None,
    consistency: LossEstimator | None = None,
    **options,
) -> Di4C:
    """Di4C with the terms whose estimators are given, at the times t, the teacher's step a quarter; options: others of Di4C."""
    teacher, student, sampler = system
    return Di4C(
        teacher,
        student,
        latent=latent,
        sampler=sampler,
        components=components,
        time=TimeGrid(points=t),
        teacher_step=TeacherStep("constant", size=0.25, substeps=2) if consistency else None,
        data=DataTerm(1.0, data, Gate("constant", 1.0)) if data is not None else None,
        consistency=ConsistencyTerm(1.0, consistency) if consistency is not None else None,
        **options,
    )


def gradients(made: Di4C, batch: Batch, repeats: int, *, first_seed: int = 0) -> tuple[Tensor, Tensor]:
    """Loss [R] and gradient [R, P] of the batch's mean, at one x_t, with fresh λ (and targets) each time."""
    count, process = len(batch.x_0), made.teacher.process
    t = made.options.time.sample(Draws(0, count=count).child("t"))[0]
    x_t, corrupt = process.corrupt(batch.x_0, t, Draws(0, count=count).child("x_t")), process.corrupt

    def loss(k: int) -> Tensor:
        draws = Draws(first_seed + k, count=count)
        return made.loss(draw_inputs(made.options, made.teacher, made.model, batch, draws))["loss"].mean()

    process.corrupt = lambda *_: x_t
    try:
        return repeated_gradients(loss, made.model.parameters(), repeats)
    finally:
        process.corrupt = corrupt


def errors(losses: Tensor, found: Tensor, truth: float, exact: Tensor, noise: float, batch: int) -> dict[str, float]:
    """Bias and spread of the loss (nats, the spread of one example's) and of the gradient in units of `noise`."""
    values = {"bias_nats": float(losses.mean() - truth), "sd_nats": float(losses.std() * math.sqrt(batch))}
    return values | gradient_errors(found, exact, noise)
