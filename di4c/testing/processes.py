"""Checks of forward processes and of the samplers that run along them."""

import itertools

import torch
from torch import Tensor

from di4c.contracts import Denoiser, Draws, ForwardProcess, Prediction, Sampler, Teacher
from di4c.testing.expected import all_at, data_tokens, require


def check_process(process: ForwardProcess, *, positions: int = 4, seed: int = 0) -> None:
    """t = 0 gives the data; draws do not depend on ranks; the posterior's draws follow its own log-probabilities."""
    draws = Draws(seed, count=64)
    x_0 = data_tokens(process, draws.child("x_0"), positions)
    require(
        torch.equal(process.corrupt(x_0, all_at(64, 0.0), draws.child("none")), x_0), "corrupt at t = 0 must give x_0"
    )
    x_t = process.corrupt(x_0, all_at(64, 0.6), draws.child("x_t"))
    require(x_t.shape == x_0.shape and x_t.dtype == torch.int64, "corrupt must return int64 of x_0's shape")
    require(x_t.min() >= 0 and x_t.max() < process.num_states, "corrupt left the states 0 … num_states − 1")
    part = process.corrupt(x_0[10:], all_at(54, 0.6), Draws(seed, first=10, count=54).child("x_t"))
    require(torch.equal(part, x_t[10:]), "corrupt must draw from `draws` alone, row by row, so that ranks agree")
    prior = process.prior(positions, draws.child("prior"))
    require(prior.shape == (64, positions) and prior.dtype == torch.int64, "prior must be [B, D] int64")
    _check_posterior(process, x_t[:1], x_0[:1], seed)
    if process.mask_index is not None:
        other = Prediction.point(data_tokens(process, draws.child("other"), positions), x_t, process.num_states)
        x_s = process.posterior(x_t, other, all_at(64, 0.6), all_at(64, 0.3), draws.child("x_s"))
        require(((x_s == x_t) | (x_t == process.mask_index)).all(), "posterior changed a state that was no mask")


def _check_posterior(process: ForwardProcess, x_t: Tensor, x_0: Tensor, seed: int, number: int = 4000) -> None:
    """The mean log-probability of drawn x_s equals minus the entropy estimated from their frequencies, position 0."""
    many_t, many_0 = x_t.expand(number, -1), x_0.expand(number, -1)
    prediction = Prediction.point(many_0, many_t, process.num_states)
    t, s = all_at(number, 0.6), all_at(number, 0.3)
    x_s = process.posterior(many_t, prediction, t, s, Draws(seed, count=number))
    outcomes, counts = x_s.unique(dim=0, return_counts=True)
    again = [x.expand(len(outcomes), -1) for x in (x_t, x_0)]
    log_p = process.posterior_log_prob(
        outcomes,
        again[0],
        Prediction.point(again[1], again[0], process.num_states),
        t[: len(outcomes)],
        s[: len(outcomes)],
    )
    require(log_p.shape == (len(outcomes), 1), "posterior_log_prob must be [B, M]")
    p = log_p[:, 0].double().exp()
    error = 5 * (p * (1 - p) / number).sqrt() + 5 / number
    require(p.sum() < 1 + 1e-4, "posterior_log_prob sums to more than 1")
    require(((counts / number - p).abs() <= error).all(), "posterior draws do not follow posterior_log_prob")


def check_sampler(sampler: Sampler, teacher: Teacher, *, steps: int = 3, num_classes: int | None = None) -> None:
    """The grid runs from 1 down; samples in 1 to 2·D steps are data states; the same draws give the same tokens. Under a process
    with a mask visible tokens stay and no mask is left, whatever probability a network gives the mask."""
    process, positions = teacher.process, teacher.num_positions
    denoisers = (
        [teacher.predict] if process.mask_index is None else [teacher.predict, _fond_of_masks(process, positions)]
    )
    x_1 = process.prior(positions, Draws(0, count=4))
    cond = Draws(2, count=4).integers(num_classes) if num_classes else None
    for number in sorted({1, 2, steps, 2 * positions}):
        times = sampler.times(number)
        falling = all(a > b for a, b in itertools.pairwise(times))
        require(
            times[0] == 1.0 and falling and len(times) == number + 1,
            f"times({number}) must fall from 1, in {number} steps",
        )
        for denoiser in denoisers:
            _check_samples(sampler, denoiser, x_1, number, cond)
    if process.mask_index is not None:
        x_0 = sampler.step(denoisers[-1], x_1, all_at(4, 1.0), all_at(4, 0.0), cond, Draws(1, count=4))
        require((x_0 != process.mask_index).all(), "a step to s = 0 left masks")


def _check_samples(sampler: Sampler, denoiser: Denoiser, x_1: Tensor, steps: int, cond: Tensor | None) -> None:
    process, draws = sampler.process, Draws(1, count=len(x_1))
    first, second = (sampler.sample(denoiser, x_1.clone(), steps, cond, draws.child("sample")) for _ in range(2))
    told = f"in {steps} steps"
    require(torch.equal(first, second), f"the same draws must give the same tokens, {told}")
    require(first.shape == x_1.shape and first.dtype == torch.int64, "samples must be [B, D] int64")
    require(
        first.min() >= 0 and first.max() < process.num_states, f"samples left the states 0 … num_states − 1, {told}"
    )
    if process.mask_index is None:
        return
    require((first != process.mask_index).all(), f"samples still hold masks, {told}")
    visible = draws.child("visible").uniform(x_1.shape[1]) < torch.linspace(0, 1, len(x_1))[:, None]
    prompted = torch.where(visible, data_tokens(process, draws.child("prompt"), x_1.shape[1]), x_1)
    x_0 = sampler.sample(denoiser, prompted.clone(), steps, cond, draws.child("sample"))
    require(torch.equal(x_0[visible], prompted[visible]), f"visible tokens of x_1, a prompt, must stay, {told}")
    require((x_0 != process.mask_index).all(), f"samples with a prompt still hold masks, {told}")


def _fond_of_masks(process: ForwardProcess, positions: int) -> Denoiser:
    """A network that reads visible positions anew and gives most probability to the mask, as a `raw` one may."""
    logits = Draws(3, path=("logits",)).normal(positions, process.num_states)[0].float()
    logits[:, process.mask_index] += 6.0
    return lambda x_t, t, cond: Prediction.from_logits(logits.expand(len(x_t), -1, -1), x_t)
