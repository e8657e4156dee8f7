"""The mixture denoiser p^θ(x_0 | x_t) = E_λ ∏_d p^{θ,d}(x_0^d | x_t; λ), and the ways to sample from it."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from di4c.contracts import Backbone, Context, Denoiser, Draws, LambdaSampler, Parameterisation, Prediction, StudentHead
from di4c.draws import categorical
from di4c.mixture.rows import recomputed

PRODUCT_COMPONENTS = 64
"""λ draws that average to the marginals of a continuous prior, where a `product` of them is asked for."""


class MixtureStudent(nn.Module):
    """A backbone, and a student head through which λ enters it."""

    def __init__(self, backbone: Backbone, head: StudentHead, *, parameterisation: Parameterisation, num_states: int):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.parameterisation = parameterisation
        self.num_states = num_states

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: Tensor | None,
        lam: Tensor,
        log_weights: Tensor | None = None,
        *,
        at_a_time: int | None = None,
    ) -> Prediction:
        """The M components at x_t: x_t [B, D], t [B], cond [B] or None, λ [B, M, L], log-weights [M] or None (equal).

        at_a_time: see `_features`; but for dropout, what is predicted and its gradient do not depend on it.
        """
        context = self.head.context(lam)
        return Prediction(
            features=self._features(x_t, t, cond, context, at_a_time or lam.shape[1]),
            x_t=x_t,
            output_head=self.backbone.readout,
            parameterisation=self.parameterisation,
            num_states=self.num_states,
            components=lam.shape[1],
            modulation=context.modulation,
            log_weights=log_weights,
        )

    def _features(self, x_t: Tensor, t: Tensor, cond: Tensor | None, context: Context, at_a_time: int) -> Tensor:
        """The backbone's features, with the activations of at most `at_a_time` components held at once.

        The blocks that λ does not enter run once and keep their activations (of B rows). Then a first pass leaves the features of all
        components, B·M·D·H numbers, from which the loss takes its sums over λ as they are; once it has their gradient, the backward
        pass runs each group again, with the dropout masks of its first pass. Masks are drawn group by group, so with dropout the
        features are another draw than those of all components together.
        """
        if not context.enters or at_a_time >= context.components:
            return self.backbone(x_t, t, cond, context)
        backbone, parts = self.backbone, []
        trunk = backbone(x_t, t, cond, replace(context, only_trunk=True)) if "trunk" in backbone.accepts else None
        for part in context.split(at_a_time, trunk):
            h = recomputed(backbone, x_t, t, cond, part, same_masks=not x_t.is_meta)
            parts.append(h.unflatten(0, (len(x_t), -1)))
        return torch.cat(parts, 1).flatten(0, 1)


def mixture_denoiser(student: MixtureStudent, latent: LambdaSampler, draws: Draws) -> Denoiser:
    """The student with the whole prior: a fresh λ for every sequence at every call."""
    return lambda x_t, t, cond: student.predict(x_t, t, cond, shared_by_copies(latent.sample(1, draws), x_t))


def atoms_denoiser(student: MixtureStudent, atoms: Tensor, weights: Tensor, draws: Draws) -> Denoiser:
    """The student with λ restricted to K atoms [K, L] with weights [K]: a fresh choice for every sequence and call."""
    weights = weights.double().to(draws.device)

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Prediction:
        chosen = categorical(weights, draws.uniform())
        return student.predict(x_t, t, cond, shared_by_copies(atoms[chosen.to(atoms.device)][:, None], x_t))

    return denoise


def product_denoiser(student: MixtureStudent, latent: LambdaSampler, draws: Draws) -> Denoiser:
    """The product of the student's λ-averaged marginals: the same marginals, no correlation between positions."""
    components = latent.num_atoms or PRODUCT_COMPONENTS
    log_weights = latent.log_weights(components)

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Prediction:
        lam = shared_by_copies(latent.sample(components, draws), x_t)
        return student.predict(x_t, t, cond, lam, log_weights.to(x_t.device)).average()

    return denoise


def shared_by_copies(lam: Tensor, x_t: Tensor) -> Tensor:
    """λ [B, M, L] for x_t of k·B rows, k copies of a batch one after another: [k·B, M, L], on x_t's device."""
    copies, rest = divmod(len(x_t), len(lam))
    assert not rest, f"a denoiser with draws for {len(lam)} examples was called with {len(x_t)} rows"
    return lam.to(x_t.device).repeat(copies, 1, 1)
