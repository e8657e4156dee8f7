"""Training a teacher by its continuous-time bound."""

from torch import Tensor

from di4c.contracts import Batch, Draws, Objective, Teacher, TimeSampler
from di4c.losses.inputs import dropped_labels
from di4c.mixture.scored import ScoredByRows


class NELBO(Objective):
    """E_{t, x_t} of the process's bound on −log p^ψ(x_0), in nats (MDLM's NELBO for absorbing processes).

    `time` samples t; a low-discrepancy sampler lowers the variance. `label_dropout` replaces labels by "no label".
    """

    def __init__(self, teacher: Teacher, *, time: TimeSampler, label_dropout: float = 0.0):
        super().__init__()
        self.model = teacher.backbone.requires_grad_(True)
        self.process = teacher.process
        self.parameterisation = teacher.parameterisation
        self.time = time
        self.label_dropout = label_dropout

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B] nats}."""
        t, _ = self.time.sample(draws.child("t"))
        x_t = self.process.corrupt(batch.x_0, t, draws.child("x_t"))
        cond = dropped_labels(batch.cond, self.label_dropout, draws)
        features = self.model(x_t, t, cond)
        prediction = ScoredByRows(
            features, x_t, self.model.readout, self.parameterisation, num_states=self.process.num_states
        )
        return {"loss": self.process.nelbo(batch.x_0, x_t, t, prediction)}
