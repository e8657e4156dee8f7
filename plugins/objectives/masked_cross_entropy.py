"""MaskGIT's own training loss."""

from torch import Tensor

from di4c.contracts import Batch, Draws, Pretraining, Teacher
from di4c.errors import SpecError


class MaskedCrossEntropy(Pretraining):
    """Σ_d [ −(1 − ε)·log p^d(x_0^d | x_t) − ε·(1/S)·Σ_s log p^d(s | x_t) ], t ~ U[0, 1]: [B] nats (Chang et al. 2022).

    ε is `label_smoothing`. `visible: true` sums over all positions, as the published code does: its network learns to
    repeat the visible tokens, which the `raw` parameterisation then counts. `label_dropout` replaces labels by "no
    label". Unlike the NELBO this is no bound on −log p(x_0): all times weigh the same.
    """

    def __init__(
        self, teacher: Teacher, *, label_smoothing: float = 0.1, label_dropout: float = 0.1, visible: bool = True
    ):
        if not 0 <= label_smoothing < 1:
            raise SpecError(f"objective.label_smoothing: in [0, 1); found {label_smoothing}")
        super().__init__(teacher, label_dropout=label_dropout)
        self.label_smoothing, self.visible = label_smoothing, visible

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B] nats, "masked": [B] the masked positions' −log p, their mean in nats a token}."""
        prediction = self.predicted(batch, draws.child("t").uniform(), draws)
        log_p = prediction.log_p0()
        nll = -log_p.gather(-1, batch.x_0.unsqueeze(-1)).squeeze(-1)
        smoothed = (1 - self.label_smoothing) * nll - self.label_smoothing * log_p.mean(-1)
        masked = prediction.x_t == self.process.mask_index
        counted = smoothed if self.visible else smoothed * masked
        return {"loss": counted.sum(1), "masked": (nll * masked).sum(1).detach() / masked.sum(1).clamp_min(1)}
