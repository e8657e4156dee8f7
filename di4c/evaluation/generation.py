"""Samples of a model, batch by batch, the same on any number of ranks."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import DataSource, Draws, ForwardProcess, Generation, Sampler, Tempering
from di4c.contracts.lent import observed, sampling
from di4c.errors import TrainingError
from di4c.evaluation.arguments import known_tokens
from di4c.evaluation.models import Model
from di4c.evaluation.rows import mean_calls


@dataclass(frozen=True)
class Samples:
    """x_0 [n, D] int64 on the CPU; seconds: a sequence's share of each batch's time.

    rows: of all calls of the model and of the sampler's own teacher together, so that a doubled batch counts twice.
    """

    x_0: Tensor
    rows: int
    seconds: list[float]

    @property
    def nfe(self) -> float:
        """Calls of networks for a sequence, in the mean."""
        return mean_calls(self.rows, len(self.x_0))


@dataclass(frozen=True)
class Recipe:
    """How samples are made: `steps` steps of the sampler from its process's prior.

    known: see `prompted`. tempering: of every prediction, the sampler's own teacher's too.
    """

    model: Model
    sampler: Sampler
    num_positions: int
    steps: int
    known: Tensor | None = None
    tempering: Tempering | None = None

    @torch.inference_mode()
    def batch(self, cond: Tensor | None, draws: Draws) -> tuple[Tensor, int]:
        """(x_0 [B, D] on the draws' device, rows of all calls of networks); cond [B] or None.

        Raises TrainingError where a network says NaN or infinity, and where a mask is left, which breaks the sampler's contract.
        """
        sampler, process = self.sampler, self.sampler.process
        x_1 = prompted(process, process.prior(self.num_positions, draws.child("prior")), self.known)
        denoiser = observed(self.model.denoiser(draws.child("lambda")))
        with sampling(self.tempering) as calls:
            x_0 = sampler.sample(denoiser, x_1, self.steps, cond, draws.child("sampler"))
        if calls.numbers is not None and not calls.numbers:
            raise TrainingError(
                "the network's outputs are NaN or infinite, so its samples would mean nothing; are its weights damaged?"
            )
        masks = 0 if process.mask_index is None else int((x_0 == process.mask_index).sum())
        if masks:
            told = f"{masks} of {x_0.numel()} positions are masks after {self.steps} steps"
            raise TrainingError(f"sampler {type(sampler).__name__}: {told}; are the network's outputs finite numbers?")
        return x_0, calls.rows

    def batches(self, cond: Tensor | None, draws: Draws, batch_size: int, some: range | None = None) -> Samples:
        """The samples of some batches (all, if not told) of the draws' n examples, in order; cond [n] or None.

        Batch i holds the examples i·batch_size, …; its samples depend on the draws and on i alone, so that ranks can share them.
        """
        parts, seconds, total = [torch.empty(0, self.num_positions, dtype=torch.int64)], [], 0
        for i in range(-(-draws.count // batch_size)) if some is None else some:
            rows = slice(i * batch_size, min((i + 1) * batch_size, draws.count))
            part = draws.rows(rows.start, rows.stop)
            start = _now(draws.device)
            x_0, rows_called = self.batch(None if cond is None else cond[rows], part)
            seconds.append((_now(draws.device) - start) / part.count)
            total += rows_called
            parts.append(x_0.cpu())
        return Samples(torch.cat(parts), total, seconds)

    def generation(self, x_0: Tensor, cond: Tensor | None, draws: Draws) -> Generation:
        """Samples as metrics take them, with the model in the form that they were made in."""
        denoiser = self.model.denoiser(draws.child("lambda"))
        return Generation(
            x_0=x_0, cond=cond, steps=self.steps, sampler=self.sampler,
            denoiser=lambda *given: denoiser(*given).tempered(self.tempering),
            components=lambda *given: self.model.components(*given).tempered(self.tempering), draws=draws,
        )  # fmt: skip


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


def labels_at_random(labels: Tensor, draws: Draws) -> Tensor:
    """As training_labels, from the labels of all training examples [n]."""
    return labels[draws.child("labels").integers(len(labels)).cpu()].to(draws.device)


def _now(device: torch.device | str) -> float:
    """The clock in seconds, read when the device has done its work and not only queued it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
