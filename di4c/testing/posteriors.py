"""Checks of what proposes λ: the families of posteriors of λ samplers, and the networks behind them."""

import torch

from di4c.contracts import Draws, LambdaSampler, Posterior
from di4c.testing.expected import require


def check_proposal(latent: LambdaSampler, *, examples: int = 4000) -> None:
    """Shapes; at 0 it is the prior; E_q p/q = 1 and E_q log q/p = KL within five standard errors; draws row by row, sample by sample."""
    parameters = Draws(1, count=2).normal(3, latent.proposal_width).float()
    q = latent.proposal(parameters)
    found, divergence = q.draw(4, Draws(0, count=2)), q.divergence()
    require(
        found.lam.shape == (2, 3, 4, latent.dim) and found.lam.dtype == torch.float32, "λ must be [B, J, M, L] float32"
    )
    require(
        found.log_ratio.shape == (2, 3, 4) and divergence.shape[:2] == (2, 3),
        "log_ratio must be [B, J, M], a divergence [B, J, F]",
    )
    require((found.log_q is None) == q.reparameterised, "log_q is given where λ is not reparameterised, and only there")
    part = latent.proposal(parameters[1:, :1]).draw(4, Draws(0, first=1, count=1))
    require(torch.equal(part.lam, found.lam[1:, :1]), "draws depend on other examples or samples")
    prior = latent.proposal(torch.zeros_like(parameters))
    require(prior.draw(4, Draws(0, count=2)).log_ratio.abs().max() < 1e-4, "of parameters 0, q must be the prior")
    require(prior.divergence().abs().max() < 1e-5, "of parameters 0, the divergence must be 0")
    many = latent.proposal((0.3 * parameters[:1, :1]).expand(examples, -1, -1))
    log_ratio = many.draw(1, Draws(0, count=examples)).log_ratio.double().flatten()
    for value, expected, name in (
        (log_ratio.exp(), 1.0, "E_q p/q must be 1"),
        (-log_ratio, float(many.divergence()[0].sum()), "E_q log q/p must be the divergence"),
    ):
        error = 5 * value.std() / examples**0.5
        told = f"{name}; found {float(value.mean()):.4g}, expected {expected:.4g}"
        require((value.mean() - expected).abs() < error, told)


def check_posterior(posterior: Posterior, *, latent: LambdaSampler, num_positions: int, num_states: int) -> None:
    """Shape [B, J, P]; a finite divergence; a sample's parameters depend on it, x_t and t alone; gradients reach all parameters."""
    draws = Draws(0, count=3)
    x = draws.child("x").integers(num_states, 2, num_positions)
    x_t = draws.child("x_t").integers(num_states, num_positions)
    t = draws.child("t").uniform().float()
    found = posterior(x, x_t, t)
    require(found.shape == (3, 2, latent.proposal_width), f"parameters must be [B, J, P]; found {tuple(found.shape)}")
    require(latent.proposal(found).divergence().isfinite().all(), "the divergence of q from the prior must be finite")
    alone = posterior(x[1:2, 1:], x_t[1:2], t[1:2])
    require(torch.allclose(alone, found[1:2, 1:], atol=1e-5), "parameters depend on other examples or samples")
    found.square().sum().backward()
    unreached = [name for name, p in posterior.named_parameters() if p.requires_grad and p.grad is None]
    require(not unreached, f"no gradient reaches {', '.join(unreached[:3])}")
