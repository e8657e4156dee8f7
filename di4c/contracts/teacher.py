"""The many-step model that is distilled."""

import torch
from torch import Tensor, nn

from di4c.contracts.backbone import Backbone, backbone_lacks
from di4c.contracts.head import StudentHead
from di4c.contracts.parameterisation import Parameterisation
from di4c.contracts.prediction import Denoiser, Prediction
from di4c.contracts.process import ForwardProcess
from di4c.draws import Draws


class Teacher:
    """A frozen product model p^ψ(x_0 | x_t). A plain object, so that it cannot leak into optimizer, ZeRO or checkpoint.

    A plugin sets the four attributes below in its constructor; `predict` and `student_backbone` then work as they are.

    Constructed, by keyword, with what it asks for of `process`, `num_positions`, `num_states`, `num_classes`, `data` (or its sizes
    alone) and `weights`, False where a network is wanted without its weights being read. `run` in a spec's entry is not its
    matter: a pretraining run gives options and weights to a teacher of any name; a distillation run gives its `student`, a mixture
    with its weights, and `latent`, its λ sampler, to a teacher that asks for both.
    """

    process: ForwardProcess
    parameterisation: Parameterisation
    backbone: Backbone
    num_positions: int

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        """p^ψ(x_0 | x_t) as a one-component Prediction; x_t [B, D], t [B], cond [B] or None. No gradient."""
        features = self.backbone(x_t, t, cond)
        return Prediction(features, x_t, self.backbone.readout, self.parameterisation, self.process.num_states)

    def denoiser(self, draws: Draws) -> Denoiser:
        """What a sampler's steps look at: `predict`, unless the teacher is a mixture, which draws a λ at every call."""
        return self.predict

    def components(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        """The components whose weighted mean the steps' law is, for likelihoods: `predict`, unless the teacher is a mixture."""
        return self.predict(x_t, t, cond)

    @property
    def network(self) -> nn.Module:
        """All that has weights, in one module: the backbone, unless a plugin has more (a λ head, say)."""
        return self.backbone

    def student_backbone(self) -> Backbone:
        """A fresh trainable backbone that starts from the teacher's weights."""
        return self.backbone.for_student()

    def warm_start(self, head: StudentHead) -> None:
        """Gives a student's fresh head what the teacher knows of λ; nothing, unless the teacher is itself a student."""

    def to(self, device: torch.device | str) -> "Teacher":
        """Moves the network; returns self."""
        self.network.to(device)
        return self

    def freeze(self) -> "Teacher":
        """Evaluation mode and no gradients; returns self."""
        self.network.eval().requires_grad_(False)
        return self

    @staticmethod
    def resolved_entry(entry: dict) -> dict:
        """The spec entry, completed before construction by what it points to (a run's own spec, say)."""
        return entry

    def portable_entry(self, entry: dict) -> dict:
        """The spec entry that rebuilds this teacher's architecture without its weights, for exports; `entry` is resolved.

        A teacher that reads weights from somewhere returns an entry that does not.
        """
        return entry


def teacher_lacks(teacher: Teacher) -> str | None:
    """What a teacher's constructor has left out that everybody takes from it, in words; None: nothing."""
    needed = ("process", "parameterisation", "backbone", "num_positions")
    missing = [name for name in needed if not hasattr(teacher, name)]
    if missing:
        return (
            f"{type(teacher).__name__} sets no {', '.join(missing)}; a teacher's constructor sets {', '.join(needed)}"
        )
    return backbone_lacks(teacher.backbone)
