"""Training a teacher: what its objectives have in common, and its continuous-time bound."""

from torch import Tensor

from di4c.contracts import Batch, Draws, Objective, Prediction, Teacher, TimeSampler
from di4c.losses.inputs import dropped_labels
from di4c.mixture.scored import ScoredByRows


class Pretraining(Objective):
    """Base of the objectives that train a teacher's network on noised data. `label_dropout` replaces labels by "no label"."""

    def __init__(self, teacher: Teacher, *, label_dropout: float):
        super().__init__()
        self.model = teacher.backbone.requires_grad_(True)
        self.process, self.parameterisation = teacher.process, teacher.parameterisation
        self.label_dropout = label_dropout

    def predicted(self, batch: Batch, t: Tensor, draws: Draws, kind: type[Prediction] = Prediction) -> Prediction:
        """What the network says of the examples noised at t [B]: one component at its x_t."""
        x_t = self.process.corrupt(batch.x_0, t, draws.child("x_t"))
        features = self.model(x_t, t, dropped_labels(batch.cond, self.label_dropout, draws))
        return kind(features, x_t, self.model.readout, self.parameterisation, num_states=self.process.num_states)


class NELBO(Pretraining):
    """E_{t, x_t} of the process's bound on −log p^ψ(x_0), in nats (MDLM's NELBO for absorbing processes).

    `time` samples t; a low-discrepancy sampler lowers the variance. `label_dropout` replaces labels by "no label".
    """

    def __init__(self, teacher: Teacher, *, time: TimeSampler, label_dropout: float = 0.0):
        super().__init__(teacher, label_dropout=label_dropout)
        self.time = time

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B] nats}."""
        t, _ = self.time.sample(draws.child("t"))
        prediction = self.predicted(batch, t, draws, ScoredByRows)
        return {"loss": self.process.nelbo(batch.x_0, prediction.x_t, t, prediction)}
