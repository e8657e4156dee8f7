"""Families of posteriors q(λ | x, x_t): diagonal Gaussian, on the cube by its quantiles, and a product of categorical distributions."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from di4c.contracts import Draws, Proposal, Proposed, categorical

LARGEST_LOG_SCALE = 5.0
"""Standard deviations stay between e⁻⁵ and e⁵."""


def start_gaussian(layer: nn.Linear, *, spread: float, noise: float) -> None:
    """Means of standard deviation `spread` over examples, σ = `noise` for all."""
    mean, log_scale = layer.weight.data.chunk(2)
    nn.init.normal_(mean, std=spread / math.sqrt(layer.in_features))
    nn.init.zeros_(log_scale)
    nn.init.zeros_(layer.bias)
    layer.bias.data.chunk(2)[1].fill_(LARGEST_LOG_SCALE * math.atanh(math.log(noise) / LARGEST_LOG_SCALE))


@dataclass(frozen=True)
class GaussianProposal(Proposal):
    """N(μ, diag σ²) for z ~ N(0, I): z = μ + σ·ε, reparameterised (Kingma & Welling 2014). λ = z, or Φ(z) on the cube.

    parameters: [B, J, 2L], μ and log σ (bounded smoothly). points(M, draws): [B, M, L] in (0, 1), whose normal quantiles are ε.
    A map of z to λ changes neither the ratio of the densities nor the divergence.
    """

    parameters: Tensor
    points: Callable[[int, Draws], Tensor]
    on_cube: bool = False

    def draw(self, components: int, draws: Draws) -> Proposed:
        mean, log_scale = self._moments()
        each = [self.points(components, draws.child("sample", j)) for j in range(mean.shape[1])]
        noise = torch.special.ndtri(torch.stack(each, 1).clamp(2.0**-54, 1 - 2.0**-53)).to(mean)  # [B, J, M, L]
        z = mean[:, :, None] + log_scale.exp()[:, :, None] * noise
        log_ratio = (0.5 * (noise.square() - z.square()) + log_scale[:, :, None]).sum(-1)
        return Proposed((torch.special.ndtr(z) if self.on_cube else z).float(), log_ratio)

    def divergence(self) -> Tensor:
        """½(μ² + σ² − 1) − log σ: [B, J, L]."""
        mean, log_scale = self._moments()
        return 0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale

    def _moments(self) -> tuple[Tensor, Tensor]:
        mean, raw = self.parameters.float().chunk(2, dim=-1)
        return mean, LARGEST_LOG_SCALE * torch.tanh(raw / LARGEST_LOG_SCALE)


@dataclass(frozen=True)
class CategoricalProposal(Proposal):
    """∏_l Cat(softmax of K logits) against the uniform prior on K^L. parameters: [B, J, L·K]; values: K.

    λ is the L one-hots in a row. Its draws are hard: relaxed ones would be λ that no student is sampled with, so the gradient takes
    the score function (`log_q`).
    """

    reparameterised = False

    parameters: Tensor
    values: int

    def draw(self, components: int, draws: Draws) -> Proposed:
        log_q = self._log_probs()  # [B, J, F, K]
        _size, samples, factors, values = log_q.shape
        each = [draws.child("sample", j).uniform(factors, components) for j in range(samples)]
        index = categorical(log_q.detach().exp(), torch.stack(each, 1))  # [B, J, F, M]
        chosen = log_q.gather(-1, index).sum(2)
        lam = torch.nn.functional.one_hot(index.transpose(2, 3), values).flatten(-2).float()
        return Proposed(lam, -factors * math.log(values) - chosen, chosen)

    def divergence(self) -> Tensor:
        """Σ_k q(k) log K·q(k): [B, J, L]."""
        log_q = self._log_probs()
        return (log_q.exp() * (log_q + math.log(self.values))).sum(-1)

    def _log_probs(self) -> Tensor:
        return self.parameters.float().unflatten(-1, (-1, self.values)).log_softmax(-1)
