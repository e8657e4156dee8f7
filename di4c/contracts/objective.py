"""What the engine trains."""

from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from di4c.contracts.dataset import Batch
from di4c.contracts.prediction import Prediction
from di4c.contracts.teacher import Teacher
from di4c.draws import Draws
from di4c.errors import SpecError

ProbeBatch = Callable[[int], Batch]
"""n → the next n examples of the run, the same on all ranks, however many a rank's micro-batch has."""


class Objective(nn.Module):
    """A module whose forward computes a whole training loss: one engine call, one backward.

    Constructed, by keyword, with what it asks for of `process`, `teacher`, `student`, `latent` (those that the task has) and the
    data's `num_positions`, `num_states`, `num_classes`; `open_split` gives the training split, for examples besides the batch. With task
    `tokenizer` there are sizes and split alone.
    `model` is the submodule that is exported. `teacher`, if there is one, is called but not trained: the engine moves or shards
    it. Every rank makes the same calls of parametrised modules whatever it draws. Parameters outside `model` may be trained too: see
    `apart` and `rests`.
    """

    model: nn.Module

    @property
    def teacher(self) -> Teacher | None:
        """The frozen teacher, no submodule."""
        return None

    def apart(self, name: str) -> bool:
        """Whether the trainable parameter of that name is trained beside the model (a critic's, say).

        Such parameters are optimised and checkpointed like the others, but neither averaged nor exported.
        """
        return not name.startswith("model.")

    def rests(self, step: int) -> bool:
        """Whether a step leaves the model's parameters, and what the optimizer knows of them, as they are: only those apart move.

        The loss of such a step still reaches every parameter, with a gradient of zero where it rests. A function of the step alone.
        """
        return False

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

    def diagnostics(self, batch: Batch, draws: Draws, probe_batch: ProbeBatch | None = None) -> dict[str, float]:
        """Cheap measurements taken every `train.diagnostics_every` steps, e.g. the mixture's mutual information.

        batch: a micro-batch of this rank. probe_batch: asked for what needs more examples, by all ranks or by none; what
        needs it is left out where it is None.
        """
        return {}

    def warnings(self, found: Mapping[str, float], progress: float) -> dict[str, str]:
        """{name: what is wrong, and what helps}, of what `diagnostics` found, averaged over the ranks.

        progress: the share of the run's steps that are made, in (0, 1]. A run tells each name once.
        """
        return {}


class Pretraining(Objective):
    """Base of the objectives that train a teacher's network on noised data. `label_dropout` replaces labels by "no label"."""

    def __init__(self, teacher: Teacher, *, label_dropout: float):
        super().__init__()
        if not 0 <= label_dropout <= 1:
            raise SpecError(f"objective.label_dropout: in [0, 1]; found {label_dropout}")
        self.model = teacher.backbone.requires_grad_(True)
        self.process, self.parameterisation = teacher.process, teacher.parameterisation
        self.label_dropout = label_dropout

    def predicted(self, batch: Batch, t: Tensor, draws: Draws, kind: type[Prediction] = Prediction) -> Prediction:
        """What the network says of the examples noised at t [B]: one component at its x_t."""
        x_t = self.process.corrupt(batch.x_0, t, draws.child("x_t"))
        features = self.model(x_t, t, dropped_labels(batch.cond, self.label_dropout, draws))
        return kind(features, x_t, self.model.readout, self.parameterisation, num_states=self.process.num_states)


def dropped_labels(cond: Tensor | None, probability: float, draws: Draws) -> Tensor | None:
    """cond [B] with each label replaced by −1 (no label) with the given probability."""
    if cond is None or not probability:
        return cond
    return torch.where(draws.child("label dropout").uniform() < probability, -1, cond)
