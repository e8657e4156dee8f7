"""A student with λ used as a product teacher."""

import torch
from torch import Tensor

from di4c.contracts import Prediction, StudentHead, Teacher


class AveragedStudent(Teacher):
    """A student's marginals: p^ψ(x_0 | x_t) = ∏_d (1/K) Σ_k p^{θ,d}(x_0^d | x_t; λ_k), λ_k = (k − ½)/K for λ ~ U[0, 1].

    K = `atoms`; nothing is drawn, and a prediction costs K passes. `head` is the student's λ head of latent dimension
    1.
    """

    head: StudentHead
    atoms: int

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        """The averaged product as one component."""
        midpoints = (torch.arange(self.atoms, dtype=torch.float32, device=x_t.device) + 0.5) / self.atoms
        context = self.head.context(midpoints.expand(len(x_t), -1).unsqueeze(-1))
        features = self.backbone(x_t, t, cond, context)
        prediction = Prediction(
            features, x_t, self.backbone.readout, self.parameterisation, self.process.num_states, components=self.atoms,
            modulation=context.modulation,
        )
        return prediction.average()

    def warm_start(self, head: StudentHead) -> None:
        """Copies the λ layers into a head of the same kind and size; another head starts afresh."""
        own, fresh = self.head.state_dict(), head.state_dict()
        shapes, wanted = ({name: value.shape for name, value in state.items()} for state in (own, fresh))
        if type(head) is type(self.head) and shapes == wanted:
            head.load_state_dict(own)

    def to(self, device: torch.device | str) -> "AveragedStudent":
        self.head.to(device)
        return super().to(device)

    def freeze(self) -> "AveragedStudent":
        self.head.eval().requires_grad_(False)
        return super().freeze()
