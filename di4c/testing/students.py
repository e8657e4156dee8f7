"""Checks of what makes a student a mixture: heads, λ samplers and loss estimators."""

import torch
from torch import Tensor

from di4c.contracts import Backbone, Draws, LambdaSampler, LossEstimator, Prediction, StudentHead, Teacher
from di4c.mixture.every_sample import every_sample
from di4c.mixture.student import MixtureStudent
from di4c.mixture.sums import Query, statistics
from di4c.mixture.target import draw_target
from di4c.testing.expected import all_at, require
from di4c.testing.posteriors import check_proposal


def check_head(head: StudentHead, backbone: Backbone, *, latent_dim: int, teacher: Teacher) -> None:
    """The backbone accepts what the head needs; components differ from the start and do not depend on their neighbours."""
    require(
        head.needs <= backbone.accepts,
        f"the head needs {set(head.needs)}, the backbone accepts {set(backbone.accepts)}",
    )
    student = MixtureStudent(
        backbone, head, parameterisation=teacher.parameterisation, num_states=teacher.process.num_states
    )
    x_t = teacher.process.prior(teacher.num_positions, Draws(0, count=2))
    lam = Draws(1, count=2).uniform(4, latent_dim).float()
    rows = torch.arange(x_t.numel())
    with torch.no_grad():
        whole = student.predict(x_t, all_at(2, 1.0), None, lam).log_probs(rows)
        alone = student.predict(x_t, all_at(2, 1.0), None, lam[:, 2:3]).log_probs(rows)
    require(whole.shape == (len(rows), 4, teacher.process.num_states), "a student must read out as [P, M, S]")
    require(torch.allclose(whole[:, 2:3], alone, atol=1e-4), "a component depends on the other components' λ")
    require(whole.exp().std(dim=1).max() > 1e-6, "all components start equal: a saddle of the mixture loss")


def check_latent(latent: LambdaSampler, *, components: int = 6) -> None:
    """Shapes and dtype; rank independence; draws uncorrelated if they are said to be independent; weights that sum to 1; atoms, the
    same for the same draws, whose weights sum to 1; posteriors, where it has a family of them."""
    lam = latent.sample(components, Draws(0, count=5))
    require(lam.shape == (5, components, latent.dim) and lam.dtype == torch.float32, "sample must be [B, M, L] float32")
    part = latent.sample(components, Draws(0, first=2, count=3))
    require(torch.equal(lam[2:], part), "sample must draw from `draws` alone, row by row, so that ranks agree")
    if latent.independent and latent.num_atoms != 2:
        require(_correlation(latent) < 0.08, "`independent` is True, but the draws of an example are correlated")
    weights = latent.log_weights(components).exp()
    require(weights.shape == (components,) and (weights.sum() - 1).abs() < 1e-6, "log_weights must be [M] and sum to 1")
    for number in (1, 3):
        atoms, weights = latent.discretised(number, Draws(0))
        require(atoms.shape == (len(weights), latent.dim), "discretised must give atoms [K, L] and weights [K]")
        require((weights.sum() - 1).abs() < 1e-5, "the weights of discretised must sum to 1")
        for draws in (Draws(0), None):
            twice = [latent.discretised(number, draws)[0] for _ in range(2)]
            told = f"two calls with {'no' if draws is None else 'the same'} draws differ"
            require(torch.equal(*twice), f"discretised must draw from `draws` alone; {told}")
    if latent.proposal_width is not None:
        check_proposal(latent)


def _correlation(latent: LambdaSampler, examples: int = 4000) -> float:
    """Largest correlation, over the L dimensions, of two draws of λ for one example; its standard error is 1/√examples."""
    lam = latent.sample(2, Draws(0, count=examples)).double()
    lam = (lam - lam.mean(0)) / lam.std(0).clamp_min(1e-12)
    return float(lam.prod(1).mean(0).abs().max())


def check_estimator(estimator: LossEstimator) -> None:
    """Shapes; finite values and gradients; a constant added to all logits changes nothing; where all components are equal the
    estimate is the product's −log p(x), its KL where it uses the target's marginals, or 0 where it sums over every x."""
    logits = Draws(0, count=2).normal(3, 4, 5).requires_grad_()
    correlated, marginal = _estimate(estimator, logits)[:2]
    require(correlated.shape == marginal.shape == (2,), "an estimator returns (correlated [B], marginal [B])")
    (gradient,) = torch.autograd.grad((correlated + marginal).sum(), logits)
    require(gradient.isfinite().all(), "the gradient is not finite")
    require(gradient.sum(-1).abs().max() < 1e-8, "the loss must not change when a constant is added to all logits")
    equal = logits.detach()[:, :1].expand(-1, 3, -1, -1)
    correlated, marginal, log_p, kl = _estimate(estimator, equal)
    expected = kl if "kl" in estimator.needs else -log_p
    message = (
        'with equal components correlated + marginal must be −log p(x) of the product, or its KL where `needs` has "kl"'
    )
    if "log_law" in estimator.needs:  # the target is the product itself
        expected, message = (
            torch.zeros_like(log_p),
            "summed over every x the loss of a student equal to its target must be 0",
        )
    require(torch.allclose(correlated + marginal, expected, atol=1e-6), message)


def _estimate(estimator: LossEstimator, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(correlated, marginal, mean log p(x) of component 1, KL of the marginals) on drawn samples of the mixture itself: [B] each."""
    x_t = torch.zeros(2, 4, dtype=torch.long)
    itself = Prediction.from_logits(logits.detach(), x_t)
    drawn = draw_target(itself, Draws(1, count=2), keep_bytes=0, score=True)
    needs = estimator.needs | {"joint", "kl"}
    query = Query(needs, drawn.samples, itself, target_joint=drawn.joint)
    if "log_law" in estimator.needs:
        samples, log_law = every_sample(itself)
        query = Query(needs, samples, itself, log_law=log_law)
    found = statistics(Prediction.from_logits(logits, x_t), [query])[0]
    return *estimator(found), found.joint[..., 0].mean(-1), found.kl
