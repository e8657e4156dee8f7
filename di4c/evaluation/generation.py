"""Samples of a model, batch by batch, the same on any number of ranks."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import DataSource, Denoiser, Draws, ForwardProcess, Prediction, Sampler
from di4c.evaluation.arguments import known_tokens
from di4c.evaluation.models import Model


@dataclass(frozen=True)
class Samples:
    """x_0 [n, D] int64 on the CPU; nfe: calls of the network for a sequence; seconds: a sequence's share of each batch's time."""

    x_0: Tensor
    nfe: int
    seconds: list[float]


class CountedDenoiser:
    """A denoiser that counts its calls."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        self.calls += 1
        return self.denoiser(x_t, t, cond)


@torch.inference_mode()
def generate(
    model: Model,
    sampler: Sampler,
    num_positions: int,
    steps: int,
    cond: Tensor | None,
    draws: Draws,
    known: Tensor | None = None,
) -> tuple[Tensor, int]:
    """(x_0 [B, D] on the draws' device, calls of the denoiser): `steps` steps of the sampler from its process's prior.

    known: see `prompted`.
    """
    counted = CountedDenoiser(model.denoiser(draws.child("lambda")))
    x_1 = prompted(sampler.process, sampler.process.prior(num_positions, draws.child("prior")), known)
    x_0 = sampler.sample(counted, x_1, steps, cond, draws.child("sampler"))
    return x_0, counted.calls


def generate_batches(
    model: Model,
    sampler: Sampler,
    num_positions: int,
    steps: int,
    cond: Tensor | None,
    draws: Draws,
    *,
    batch_size: int,
    batches: range | None = None,
    known: Tensor | None = None,
) -> Samples:
    """The samples of some batches (all, if `batches` is not given) of the draws' n examples, in order; cond [n] or None.

    Batch i holds the examples i·batch_size, …; its samples depend on the draws and on i alone, so that ranks can share them.
    """
    parts, seconds, nfe = [torch.empty(0, num_positions, dtype=torch.int64)], [], 0
    for i in range(-(-draws.count // batch_size)) if batches is None else batches:
        rows = slice(i * batch_size, min((i + 1) * batch_size, draws.count))
        part = draws.rows(rows.start, rows.stop)
        start = _now(draws.device)
        x_0, nfe = generate(model, sampler, num_positions, steps, None if cond is None else cond[rows], part, known)
        seconds.append((_now(draws.device) - start) / part.count)
        parts.append(x_0.cpu())
    return Samples(torch.cat(parts), nfe, seconds)


def prompted(process: ForwardProcess, x_1: Tensor, known: Tensor | None) -> Tensor:
    """x_1 [B, D] with known tokens [D] in their places (−1: none there), which a masked process never changes; see known_tokens."""
    if known is None:
        return x_1
    known = known_tokens(known, x_1.shape[1], process).to(x_1.device)
    return torch.where(known >= 0, known, x_1)


def training_labels(data: DataSource, draws: Draws) -> Tensor | None:
    """Labels of training examples drawn at random: [B] int64 on the draws' device; None for data without labels."""
    if data.num_classes is None:
        return None
    train = data.split("train")
    return train.batch(draws.child("labels").integers(len(train)).cpu()).cond.to(draws.device)


def _now(device: torch.device | str) -> float:
    """The clock in seconds, read when the device has done its work and not only queued it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
