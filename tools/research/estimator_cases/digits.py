"""The real loss of a trained student of the digits: its gradient under repeated draws of λ, and short trainings."""

import math

import torch
from torch import Tensor

from di4c.contracts import Batch, DataSource, Draws, LambdaSampler, LossEstimator, Sampler, Teacher
from di4c.evaluation.repeated import gradients as repeated_gradients
from di4c.losses.inputs import draw_inputs
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, Gate, TeacherStep
from di4c.mixture.student import MixtureStudent
from di4c.mixture.sums import Query, statistics
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


def trained(made: Di4C, data: DataSource, *, steps: int, batch_size: int, seed: int, lr: float = 4e-3) -> None:
    """AdamW with the digits spec's rates (head five times as fast), cosine decay."""
    head = set(made.model.head.parameters())
    groups = [{"params": [*head], "lr": 5 * lr}, {"params": [p for p in made.model.parameters() if p not in head]}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min((k + 1) / 30, 0.02 + 0.98 * (1 + math.cos(math.pi * k / steps)) / 2)
    )
    split = data.split("train")
    for step in range(steps):
        draws = Draws(seed, count=batch_size).child("step", step)
        batch = split.batch(draws.child("example").integers(len(split)))
        optimizer.zero_grad()
        made(batch, draws, step)["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(made.model.parameters(), 50.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def held_out_nll(
    made: Di4C, data: DataSource, latent: LambdaSampler, *, components: int = 256, images: int = 150
) -> float:
    """−log p^θ(x_0 | x_1 all noise) of held-out images, one step, nats: the mixture over `components` λ of the law."""
    split, total = data.split("test"), 0.0
    for start in range(0, images, 50):
        index = torch.arange(start, start + 50)
        batch = split.batch(index)
        draws = Draws(0, start, len(index))
        x_1 = made.teacher.process.prior(data.num_positions, draws)
        lam = latent.sample(components, draws.child("lambda"))
        prediction = made.model.predict(x_1, torch.ones(len(index), dtype=torch.float64), batch.cond, lam)
        joint = statistics(prediction, [Query(frozenset({"joint"}), batch.x_0[:, None])])[0].joint[:, 0]
        total -= float((joint.logsumexp(-1) - math.log(components)).sum())
    return total / images
