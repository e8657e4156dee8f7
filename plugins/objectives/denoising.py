"""Training a teacher by cross-entropy at all noise levels alike, with or without its process's bound."""

from torch import Tensor

from di4c.contracts import Batch, Draws, Pretraining, Teacher
from di4c.errors import SpecError, not_negative


class Denoising(Pretraining):
    """bound·NELBO + cross_entropy·Σ_d −log p^d(x_0^d | x_t), t ~ U[low, 1]: [B] nats.

    Both terms have the same optimum; they differ in what a network that has not reached it gets right. A chain's bound
    weighs t by its jump rates, tens to thousands of times more near t = 0 than near 1, where few-step samplers begin;
    the cross-entropy weighs all t alike, at the price of a worse bound. tauLDR's loss is bound 1, cross_entropy 0.001/D
    (Campbell et al. 2022). `label_dropout` replaces labels by "no label".
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        cross_entropy: float,
        bound: float = 0.0,
        low: float = 0.0,
        label_dropout: float = 0.0,
    ):
        not_negative("objective.cross_entropy", cross_entropy)
        not_negative("objective.bound", bound)
        if cross_entropy + bound == 0 or not 0 <= low < 1:
            raise SpecError(
                f"objective: cross_entropy and bound must not both be 0, and low lies in [0, 1); found {cross_entropy}, {bound} and {low}"
            )
        super().__init__(teacher, label_dropout=label_dropout)
        self.cross_entropy, self.bound, self.low = cross_entropy, bound, low

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B] nats, "cross_entropy": [B], and "bound": [B] if it counts}, the parts unweighted."""
        t = self.low + (1 - self.low) * draws.child("t").uniform()
        prediction = self.predicted(batch, t, draws)
        cross_entropy = -prediction.log_prob_of(batch.x_0)[:, 0]
        parts, loss = {"cross_entropy": cross_entropy}, self.cross_entropy * cross_entropy
        if self.bound:
            parts["bound"] = self.process.nelbo(batch.x_0, prediction.x_t, t, prediction)
            loss = loss + self.bound * parts["bound"]
        return {"loss": loss, **parts}
