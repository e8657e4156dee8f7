"""A small masked-token objective and data set, enough to exercise the engine."""

import time
from pathlib import Path

import torch
from torch import nn

from di4c.contracts import Batch, DataSource, Objective, Split
from di4c.diagnostics.warnings import mixture_warnings
from di4c.engine.options import OptimizerOptions, ScheduleOptions, TrainOptions
from di4c.errors import DataError

POSITIONS, STATES, EXAMPLES = 6, 5, 23
OPTIONS = {
    "steps": 12, "batch_size": 8, "micro_batch_size": 4, "clip": 1.0, "ema": 0.9, "precision": "fp32", "log_every": 1,
    "checkpoint_every": 5, "diagnostics_every": 0,
    "optimizer": {"lr": 1e-2, "betas": (0.9, 0.999), "weight_decay": 0.1, "lr_multipliers": {"mix.0": 2.0}},
    "schedule": {"warmup": 3, "decay": "cosine", "final": 0.1},
}  # fmt: skip


def options_of(**changed) -> TrainOptions:
    """OPTIONS, but for what is changed."""
    values = {"run": Path("run"), **OPTIONS, **changed}
    parts = {"optimizer": OptimizerOptions(**values["optimizer"]), "schedule": ScheduleOptions(**values["schedule"])}
    return TrainOptions(**values | parts)


class ToySplit(Split):
    """unreadable: the number of the call of `batch` that fails."""

    def __init__(self, examples: int = EXAMPLES, unreadable: int | None = None):
        generator = torch.Generator().manual_seed(3)
        first = torch.randint(STATES, (examples, 1), generator=generator)
        self.calls, self.unreadable = 0, unreadable
        self.x_0 = (first + torch.arange(POSITIONS)) % STATES

    def __len__(self):
        return len(self.x_0)

    def batch(self, indices, draws=None):
        self.calls += 1
        if self.calls == self.unreadable:
            raise DataError(f"example {int(indices[0])} cannot be read")
        return Batch(self.x_0[indices])


class ToyData(DataSource):
    num_positions, num_states = POSITIONS, STATES

    def __init__(self, **options):
        self.options = options

    def split(self, name):
        return ToySplit(**self.options)

    def fingerprint(self):
        return "toy-1"


class ToyModel(nn.Module):
    """Embedding with tied output head, a frozen scale, a buffer of each kind and a layer with its own learning rate."""

    def __init__(self, width: int = 12, dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(STATES + 1, width)
        self.mix = nn.Sequential(
            nn.Linear(POSITIONS * width, 4 * width), nn.GELU(), nn.Linear(4 * width, POSITIONS * width)
        )
        self.head = nn.Linear(width, STATES + 1, bias=False)
        self.head.weight = self.embed.weight
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.ones(width), requires_grad=False)
        self.register_buffer("offset", torch.full((3,), 0.5))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        h = self.embed(x)
        h = h + self.dropout(self.mix(h.flatten(1))).unflatten(1, (POSITIONS, -1)) * self.scale
        return self.head(h).float() + self.offset[0]


class Exploding(torch.autograd.Function):
    """0, with an infinite gradient."""

    @staticmethod
    def forward(ctx, x):
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, gradient):
        return torch.where(gradient == 0, 0.0, torch.inf)


class ToyObjective(Objective):
    """−log p of masked tokens.

    poison: the steps whose loss is NaN for the last example of the batch. explode: the steps whose gradient is infinite
    though the loss is not. collapsed: what diagnostics report. pause: seconds a forward pass waits.
    """

    def __init__(self, *, poison=(), explode=(), collapsed: float = 0.0, pause: float = 0.0, dropout: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.model = ToyModel(dropout=dropout)
        self.poison, self.explode, self.collapsed, self.pause = poison, explode, collapsed, pause

    def forward(self, batch, draws, step):
        t = draws.uniform(1)
        masked = draws.uniform(POSITIONS) < 0.2 + 0.7 * t
        logits = self.model(torch.where(masked, STATES, batch.x_0))
        nll = nn.functional.cross_entropy(logits.flatten(0, 1), batch.x_0.flatten(), reduction="none")
        loss = (nll.unflatten(0, masked.shape) * masked).sum(1)
        last = torch.arange(len(loss)) + draws.first == step * 8 + 7
        if step in self.poison:
            loss = torch.where(last, loss * float("nan"), loss)
        if step in self.explode:
            loss = loss + last * Exploding.apply(loss)
        time.sleep(self.pause)
        return {"loss": loss, "masked": masked.sum(1).float()}

    def diagnostics(self, batch, draws, probe_batch=None):
        features = self.model(batch.x_0)
        return {
            "mean_logit": float(features.mean()),
            "probed": float(len(probe_batch(5).x_0)),
            "mixture_collapsed": self.collapsed,
        }

    def warnings(self, found, progress):
        return mixture_warnings(found, progress)
