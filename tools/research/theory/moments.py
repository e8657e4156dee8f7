"""Bias and variance of loss estimators over a finite prior of λ, where the true loss and gradient are known.

Student and target are mixtures of K equal-weight products, free tables of logits [K, D, S]. A replicate draws M λ for
the student, N λ' and a sample x_n of each for the target, and asks the estimator for the loss and its gradient in the
student's table.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import Draws, LossEstimator, Prediction
from di4c.mixture.every_sample import every_sample
from di4c.mixture.sums import Query, statistics
from di4c.mixture.target import draw_target
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.processes.enumeration import number_of

KEEP_BYTES = 2**28


@dataclass(frozen=True)
class Tables:
    """Logits of the student's and of the target's components: [K, D, S] float64 each."""

    student: Tensor
    target: Tensor

    @classmethod
    def random(cls, atoms: int, positions: int, states: int) -> "Tables":
        """A random student, and a target at a small distance from it, as one step of the teacher makes it."""
        draws = Draws(0, path=("tables",))
        student = 1.5 * draws.normal(atoms, positions, states)[0]
        return cls(student, student + 0.5 * draws.normal(atoms, positions, states)[0])


@dataclass(frozen=True)
class Replicates:
    """What R replicates gave: value [R] (the target's marginal entropies added back where an estimator leaves them out)
    and gradient [R, K·D·S]; reference_…: the same of −log p at the same samples, which is free of bias."""

    value: Tensor
    gradient: Tensor
    reference_value: Tensor
    reference_gradient: Tensor


def chosen_components(logits: Tensor, log_weights: Tensor | None = None) -> Prediction:
    """The mixture with the components' logits [R, M, D, S], every position uncertain."""
    x_t = torch.zeros(len(logits), logits.shape[2], dtype=torch.long)
    return Prediction(**{**vars(Prediction.from_logits(logits, x_t)), "log_weights": log_weights})


def replicates(
    estimator: LossEstimator, tables: Tables, components: int, targets: int, number: int, *, seed: int = 0
) -> Replicates:
    """R = `number` independent replicates of the estimator with M components and N targets, λ independent."""
    latent = Categorical(atoms=len(tables.student), independent=True)
    draws = Draws(seed, count=number)
    own = latent.sample(components, draws.child("lambda")).argmax(-1)
    shared = "target_joint" in estimator.needs
    theirs = own if shared else latent.sample(targets, draws.child("target lambda")).argmax(-1)
    student = tables.student[own].requires_grad_()
    target = chosen_components(tables.target[theirs])
    drawn = draw_target(target, draws.child("x_0"), keep_bytes=KEEP_BYTES, score=shared)
    query = Query(estimator.needs, drawn.samples, drawn.marginals, target_joint=drawn.joint)
    correlated, marginal = estimator(statistics(chosen_components(student, latent.log_weights(components)), [query])[0])
    value = correlated + marginal
    (gradient,) = torch.autograd.grad(value.sum(), student)
    if "kl" in estimator.needs:
        q = tables.target[theirs].softmax(-1).mean(1)
        value = value - torch.special.xlogy(q, q).sum((-2, -1))
    chosen = torch.nn.functional.one_hot(own, len(tables.student)).to(gradient)
    of_atoms = torch.einsum("rmk,rmds->rkds", chosen, gradient).flatten(1)
    return Replicates(value.detach(), of_atoms, *_reference(tables, drawn.samples))


def _reference(tables: Tables, samples: Tensor) -> tuple[Tensor, Tensor]:
    """−log p of the whole mixture averaged over the samples [R, N, D]: [R], and its gradient: [R, K·D·S]."""
    every, _ = every_sample(chosen_components(tables.target[None]))
    place = number_of(samples, tables.student.shape[-1])  # in raster order, as `every`
    student = tables.student.clone().requires_grad_()
    joint = statistics(chosen_components(student[None]), [Query(frozenset({"joint"}), every)])[0].joint[0]
    nll = -(joint.logsumexp(-1) - joint.new_tensor(joint.shape[-1]).log())
    rows = torch.stack([torch.autograd.grad(one, student, retain_graph=True)[0].flatten() for one in nll])
    shares = torch.nn.functional.one_hot(place, len(nll)).to(rows).mean(1)
    return shares @ nll.detach(), shares @ rows


@dataclass(frozen=True)
class Moments:
    """Of one estimator at one (M, N), with standard errors.

    bias: E value − truth. variance: of the value. gradient_bias: ‖E g − ∇‖, from two halves of the replicates, so that
    noise does not add to it. gradient_variance: E ‖g − E g‖². worst_z: the largest |z| of a coordinate of E g − ∇.
    """

    bias: float
    bias_error: float
    variance: float
    variance_error: float
    gradient_bias: float
    gradient_bias_error: float
    gradient_variance: float
    gradient_variance_error: float
    worst_z: float


def moments(found: Replicates) -> Moments:
    """The moments of R replicates; biases from the difference to the reference, whose noise is the samples' alone."""
    off = found.gradient - found.reference_gradient
    deviation = off.std(0)
    z = off.mean(0).abs() / (deviation.clamp_min(1e-300) / len(off) ** 0.5)
    return Moments(
        *_mean(found.value - found.reference_value),
        *_mean((found.value - found.value.mean()).square()),
        *_norm(off),
        *_mean((found.gradient - found.gradient.mean(0)).square().sum(1)),
        float(z.where(deviation > 1e-12, 0.0).max()),
    )


def _mean(values: Tensor) -> tuple[float, float]:
    """(the mean, its standard error)."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _norm(off: Tensor) -> tuple[float, float]:
    """(‖E off‖ by the inner product of independent halves' means, its standard error where it is well above 0)."""
    first, second = (half.mean(0) for half in off.tensor_split(2))
    mean = off.mean(0)
    along = (off @ mean) / mean.norm().clamp_min(1e-300)
    return max(float(first @ second), 0.0) ** 0.5, _mean(along)[1]
