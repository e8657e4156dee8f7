"""Training a teacher by its process's continuous-time bound."""

from torch import Tensor

from di4c.contracts import Batch, Draws, Pretraining, Teacher, TimeSampler
from di4c.mixture.scored import ScoredByRows


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
