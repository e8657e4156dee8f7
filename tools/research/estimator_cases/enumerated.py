"""A mixture over a grid of λ in [0, 1], small enough that every sum over λ is exact: no error in the truth."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Draws, LambdaSampler, LossEstimator, Statistics
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.unit_cube import Uniform

GRID = 1024
FEATURES = 6
REPEATS = 200


@dataclass(frozen=True)
class Tables:
    """X samples x scored under all G λ of the grid: log p_t(x | λ) and log p_u(x | λ) [X, G], and the gradient of the former in the
    D·S common logits, [X, G, D·S]."""

    joint: Tensor
    target_joint: Tensor
    gradient: Tensor


def tables(positions: int, *, grid: int = GRID, states: int = 4, samples: int = 32) -> Tables:
    """Student logits a + Σ_j b_j φ_j(λ), φ_j trigonometric; the target's b is perturbed by 3 in 10; x drawn from the target."""
    g = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    lam = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    phi = torch.stack(
        [torch.sin(2 * math.pi * (j // 2 + 1) * lam + j % 2 * math.pi / 2) / (1 + j // 2) for j in range(FEATURES)], -1
    )
    slopes, common = normal(FEATURES, positions, states), normal(positions, states)
    perturbed = slopes + 0.3 * normal(FEATURES, positions, states)
    student, target = ((common + torch.einsum("kj,jds->kds", phi, b)).log_softmax(-1) for b in (slopes, perturbed))
    atom = torch.randint(grid, (samples,), generator=g)
    x = torch.multinomial(target[atom].exp().flatten(0, 1), 1, generator=g).view(samples, positions)
    chosen = torch.nn.functional.one_hot(x, states).to(student)
    return Tables(
        torch.einsum("kds,xds->xk", student, chosen),
        torch.einsum("kds,xds->xk", target, chosen),
        (chosen[:, None] - student.exp()).flatten(2),
    )


def errors(
    case: Tables, estimator: LossEstimator, law: LambdaSampler, components: int, *, repeats: int = REPEATS
) -> dict[str, float]:
    """Bias and standard deviation of the loss (nats, of one example) and of the gradient of the mean over the X examples, the latter in
    units of the noise that X examples alone cause.

    An estimator that needs "target_joint" finds the λ that drew x first among the components, from its exact posterior.
    """
    size, grid = case.joint.shape
    truth = -(case.joint.logsumexp(-1) - math.log(grid))
    exact = -torch.einsum("xk,xkp->xp", case.joint.softmax(-1), case.gradient)
    noise = exact.pow(2).sum(-1).mean().div(size).sqrt()
    draws = Draws(0, count=size * repeats)
    lam = law.sample(components, draws)
    index = lam.argmax(-1) if law.num_atoms else (lam[..., 0].double() * grid).long().clamp_max(grid - 1)
    index = index.view(size, repeats, components)
    if "target_joint" in estimator.needs:
        generator = torch.Generator().manual_seed(0)
        index[..., 0] = torch.multinomial(case.target_joint.softmax(-1), repeats, True, generator=generator)
    rows = torch.arange(size)[:, None, None]
    joint, target = case.joint[rows, index].requires_grad_(), case.target_joint[rows, index]
    log_weights = torch.full((components,), -math.log(components), dtype=torch.float64)
    joint_of, target_of = (scored.flatten(0, 1)[:, None] for scored in (joint, target))
    value = estimator(Statistics(log_weights, joint=joint_of, target_joint=target_of))[0].view(size, repeats)
    (weights,) = torch.autograd.grad(value.sum(), joint)
    value = value.detach()
    per_grid = torch.zeros(size, repeats, grid, dtype=torch.float64).scatter_add_(-1, index, weights)
    mean = torch.einsum("xrk,xkp->rp", per_grid, case.gradient) / size  # [R, D·S], of the batch
    values = {"bias_nats": float((value.mean(1) - truth).mean()), "sd_nats": float(value.var(1).mean().sqrt())}
    return values | gradient_errors(mean, exact.mean(0), float(noise))


def gradient_errors(found: Tensor, exact: Tensor, noise: float) -> dict[str, float]:
    """Bias and spread of gradients [R, P], in units of `noise`; the bias is what the spread does not account for."""
    spread = found.var(0).sum()
    bias = ((found.mean(0) - exact).pow(2).sum() - spread / len(found)).clamp_min(0)
    return {"gradient_bias": float(bias.sqrt()) / noise, "gradient_sd": float(spread.sqrt()) / noise}


class Antithetic(Uniform):
    """Pairs (λ, 1 − λ) of U[0, 1]^L; the last draw of an odd M stands alone. Kept here to be measured."""

    independent = False

    def points(self, components: int, draws: Draws) -> Tensor:
        half = draws.uniform(-(-components // 2), self.dim)
        return torch.cat([half, 1.0 - half], 1)[:, :components]


class AntitheticGaussian(Gaussian):
    """Pairs (λ, −λ)."""

    def __init__(self, dim: int):
        super().__init__(dim=dim, points="stratified")
        self._cube = Antithetic(dim=dim)


class Telescoping(LossEstimator):
    """log p̂ of `base` components plus one randomly chosen correction of a telescoping sum over doublings (Russian roulette).

    Σ_l Δ_l, Δ_l = log p̂ of base·2^l components minus the mean of those of its two halves; level l is drawn with probability ∝ 2^(−3l/2),
    by a number that all examples share, and Δ_l divided by it. Unbiased up to base·2^levels components; kept here to be measured.
    """

    needs = frozenset({"joint"})
    assumes_independence = True

    def __init__(self, base: int, levels: int, repeats: int = REPEATS):
        self.base, self.levels = base, levels
        level = torch.arange(1, levels + 1, dtype=torch.float64)
        self.probability = 2 ** (-1.5 * level) / (2 ** (-1.5 * level)).sum()
        self.mean_components = float((self.probability * base * 2**level).sum())  # what a step reads on average
        generator = torch.Generator().manual_seed(0)
        self.level = 1 + torch.multinomial(self.probability, repeats, True, generator=generator)

    def __call__(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        joint = statistics.joint[:, 0].unflatten(0, (-1, len(self.level)))  # [X, R, M]

        def nll(components: Tensor) -> Tensor:
            return -(components.logsumexp(-1) - math.log(components.shape[-1]))

        value = nll(joint[..., : self.base])
        for level in range(1, self.levels + 1):
            size = self.base * 2**level
            halves = nll(joint[..., : size // 2]) + nll(joint[..., size // 2 : size])
            taken = (self.level == level).to(value) / self.probability[level - 1]
            value = value + taken * (nll(joint[..., :size]) - halves / 2)
        return value.flatten(), value.new_zeros(value.numel())
