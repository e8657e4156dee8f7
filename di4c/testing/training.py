"""Checks of what a training step is made of: objectives and time samplers."""

import torch

from di4c.contracts import Batch, DataSource, Draws, Objective, TimeSampler
from di4c.testing.expected import require


def check_objective(objective: Objective, data: DataSource, *, seed: int = 0) -> None:
    """A loss [B] with gradients for the model only, the same for any split of the batch over ranks."""
    batch = data.split("train").batch(torch.arange(4))
    whole = objective(batch, Draws(seed, count=4), 0)
    require(whole["loss"].shape == (4,) and whole["loss"].isfinite().all(), '"loss" must be [B] and finite')
    half = Batch(batch.x_0[2:], None if batch.cond is None else batch.cond[2:])
    part = objective(half, Draws(seed, first=2, count=2), 0)
    require(torch.allclose(part["loss"], whole["loss"][2:], rtol=1e-3), "the loss depends on how the batch is split")
    whole["loss"].mean().backward()
    require(any(p.grad is not None for p in objective.model.parameters()), "no gradient reaches objective.model")


def check_time_sampler(sampler: TimeSampler) -> None:
    """t [B] float64 in [0, 1], inside an interval that all ranks agree on; an example's t does not depend on how the batch is split."""
    for seed in range(8):
        t, (low, high) = sampler.sample(Draws(seed, count=64), 0.01)
        require(t.shape == (64,) and t.dtype == torch.float64, "t must be [B] float64")
        require(0 <= low <= t.min() and t.max() <= high <= 1, "t must lie in the interval, and that in [0, 1]")
        least, most = sampler.span
        require(least <= low and high <= most, "`span` must hold the interval of every step")
        part, interval = sampler.sample(Draws(seed, first=32, count=32), 0.01)
        require(torch.equal(part, t[32:]), "t depends on how the batch is split")
        require(interval == (low, high), "the interval depends on the share of the batch")
