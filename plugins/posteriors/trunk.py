"""The teacher's own network as a posterior."""

import torch
from torch import Tensor, nn

from di4c.contracts import LambdaSampler, Posterior, Teacher
from di4c_plugins.posteriors.parameters import parameter_network


class Trunk(Posterior):
    """A trainable copy of the teacher's backbone reads x (at t = 0) and x_t (at t); a hidden layer reads both at all positions.

    It starts with what the teacher knows of the data, and takes the memory of a second student. width: of the hidden layer; spread,
    noise: as for `transformer`.
    """

    def __init__(
        self,
        latent: LambdaSampler,
        teacher: Teacher,
        num_positions: int,
        *,
        width: int,
        spread: float = 1.0,
        noise: float = 0.2,
    ):
        super().__init__()
        self.backbone = teacher.student_backbone()
        self.backbone.readout = nn.Identity()
        features = 2 * num_positions * self.backbone.width
        self.parameters_of = parameter_network(features, width, latent, spread=spread, noise=noise)

    def forward(self, x: Tensor, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        size, samples, _ = x.shape
        labels = None if cond is None else cond.repeat_interleave(samples)
        clean = self.backbone(x.flatten(0, 1), torch.zeros_like(t).repeat_interleave(samples), labels)
        noised = self.backbone(x_t, t, cond).repeat_interleave(samples, 0)
        return self.parameters_of(torch.cat([clean, noised], -1).flatten(1)).unflatten(0, (size, samples))
