"""What the engine trains."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from di4c.contracts.dataset import Batch
from di4c.contracts.teacher import Teacher
from di4c.draws import Draws


class Objective(nn.Module):
    """A module whose forward computes a whole training loss: one engine call, one backward.

    Constructed, by keyword, with what it asks for of `process`, `teacher`, `student`, `latent` (those that the task has) and the
    data's `num_positions`, `num_states`, `num_classes`. With task `tokenizer` there are the sizes alone.
    `model` is the submodule that is exported. `teacher`, if there is one, is called but not trained: the engine moves or shards
    it. Every rank makes the same calls of parametrised modules whatever it draws. `census_examples`: how many examples more than
    a micro-batch `diagnostics` has a use for.
    """

    model: nn.Module
    census_examples: int = 0

    @property
    def teacher(self) -> Teacher | None:
        """The frozen teacher, no submodule."""
        return None

    def device_settings(self, device: torch.device) -> dict[str, int]:
        """What the objective would choose by the device alone. The ranks agree on the least, and a run keeps its own on any other device."""
        return {}

    def use_settings(self, settings: dict[str, int]) -> None:
        """Called before the first step with what was agreed on."""

    def prepare(self, draws: Draws, *, rank: int = 0, ranks: int = 1) -> None:
        """Called once on every rank before training, the teacher still whole and on the host.

        `draws` are keyed by the seed, shared by the ranks, on the rank's device.
        """

    def begin_step(self, step: int) -> None:
        """Called on every rank before the forward passes of a step: the place for what changes weights other than by gradients.

        Inside a forward pass ZeRO-3 may already be fetching them.
        """

    @abstractmethod
    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B] nats, other parts: [B], to be logged}; `draws` is keyed by (seed, step) and holds the examples."""

    def diagnostics(self, batch: Batch, draws: Draws, census: Batch | None = None) -> dict[str, float]:
        """Cheap measurements taken every `train.diagnostics_every` steps, e.g. the mixture's mutual information.

        batch: a micro-batch of this rank. census: `census_examples` examples, the same on all ranks; left out if that is 0.
        """
        return {}
