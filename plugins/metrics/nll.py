"""The n-step bound on −log p(x_0) of a sampler that takes n ancestral steps."""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, Batch, DataSource, Draws, ForwardProcess, Generation, Metric, Prediction, Split
from di4c_plugins.metrics.reference import evenly, reference

MAX_REFERENCES = 2000
LARGE_TABLE = 2**22


@dataclass(eq=False, kw_only=True)
class LikelihoodBound(Metric):
    """`nll_nats_per_token`: the n-step bound on held-out data, n the generation's steps.

    (1/D) E_q Σ_k [ log q(x_s|x_t, x_0) − log E_λ p(x_s|x_t; λ) ],   t = t_k, s = t_{k−1};
    at the last step s = 0, where q(x_0|x_t, x_0) = 1, the term is the reconstruction −log E_λ p(x_0|x_t; λ). The prior's
    term KL(q(x_1|x_0) ‖ prior) is left out: it is zero for absorbing diffusion and the same for all models.

    E_λ is a mean over `lambda_draws` draws, which raises the bound (Jensen), or exact for a finite prior. The mean is over
    `num_examples` evenly spaced held-out examples (all, if there are fewer), the same for every model and seed. An example
    contributes all n terms if n ≤ `terms`, else `terms` of them at stratified random steps, weighted n / terms: unbiased,
    and the work does not grow with n. x_t and x_s depend on the generation's draws only: with the same draws, models are
    compared on the same ones.

    Where the process masks, the terms of the data's position-wise frequencies, a model that ignores x_t, are subtracted and
    their known sum −log p(x_0) (each position is revealed once) added: unbiased, and most of the noise cancels.
    """

    needs_samples = False
    higher_is_better = False

    data: DataSource
    process: ForwardProcess
    num_examples: int = 256
    lambda_draws: int = 64
    terms: int = 1
    batch_size: int = 64

    @torch.no_grad()
    def __call__(self, generation: Generation) -> dict[str, float]:
        chosen = evenly(len(self._test), self.num_examples)
        num, shared = len(chosen), generation.draws.rows(0, 1)
        order = chosen[shared.child("order").permutation(num)[0].cpu()]
        terms = min(self.terms, generation.steps)
        total = sum(self._one_term(generation, order, term, terms) for term in range(terms)) * generation.steps / terms
        if self.process.mask_index is not None:
            x_0 = self._test.batch(order).x_0
            total -= float(self._frequencies.gather(1, x_0.T).sum())
        return {"nll_nats_per_token": total / num / self.data.num_positions}

    def _one_term(self, generation: Generation, order: Tensor, term: int, terms: int) -> float:
        """Σ over the examples of the `term`-th of an example's terms, in nats."""
        times = generation.sampler.times(generation.steps)
        offset = generation.draws.rows(0, 1).child("offset", term).scalar()
        step = stratified_steps(generation.steps, terms, term, len(order), offset)
        draws = generation.draws.rows(0, len(order)).child("term", term)
        total = 0.0
        for start, stop in _runs(step, self.batch_size):
            k = int(step[start])
            batch = self._test.batch(order[start:stop])
            total += float(self._term(generation, batch, times[k], times[k + 1], draws.rows(start, stop)).sum())
        return total

    def _term(self, generation: Generation, batch: Batch, t: float, s: float, draws: Draws) -> Tensor:
        """log q(x_s|x_t, x_0) − log E_λ p(x_s|x_t; λ) for one draw of x_t and x_s: [B], nats."""
        batch = batch.to(draws.device)
        x_0 = batch.x_0
        now, then = (torch.full((len(x_0),), v, dtype=torch.float64, device=x_0.device) for v in (t, s))
        x_t = self.process.corrupt(x_0, now, draws.child("x_t"))
        truth = Prediction.point(x_0, x_t, self.process.num_states)
        x_s = self.process.posterior(x_t, truth, now, then, draws.child("x_s")) if s > 0 else x_0
        model = generation.components(x_t, now, batch.cond, draws.child("lambda"), self.lambda_draws)
        log_q = self.process.posterior_log_prob(x_s, x_t, truth, now, then)[:, 0]
        log_p = self.process.posterior_log_prob(x_s, x_t, model, now, then).double()
        value = log_q.double() - mixture_log_prob(log_p, None if model.averaged else model.log_weights)
        if self.process.mask_index is None:
            return value
        baseline = Prediction.from_logits(self._frequencies.to(x_t.device).expand(len(x_t), -1, -1), x_t)
        return value - (log_q - self.process.posterior_log_prob(x_s, x_t, baseline, now, then)[:, 0]).double()

    @cached_property
    def _test(self) -> Split:
        return self.data.checked_split("test", self.process)

    @cached_property
    def _frequencies(self) -> Tensor:
        """log P(x^d = s) in the training data, one count added to each: [D, S] float32; the mask has none.

        Large tables are pooled over positions, as a view of one row.
        """
        x = reference(self.data, "train", MAX_REFERENCES)
        positions, states = x.shape[1], self.process.num_states
        rows = positions if positions * states <= LARGE_TABLE else 1
        cell = x + states * (torch.arange(positions) % rows)
        counts = (torch.bincount(cell.flatten(), minlength=rows * states) + 1).double().view(rows, states)
        counts[:, self.process.mask_index] = 0
        log_p = (counts / counts.sum(1, keepdim=True)).log().clamp_min(LOG_ZERO).float()
        return log_p.expand(positions, -1)


def mixture_log_prob(log_p: Tensor, log_weights: Tensor | None) -> Tensor:
    """log Σ_m w_m exp ℓ_m: [B], from the components' ℓ [B, M] and log w [M] (None: equal weights)."""
    if log_weights is None:
        return log_p.logsumexp(1) - math.log(log_p.shape[1])
    return (log_p + log_weights.to(log_p)).logsumexp(1)


def stratified_steps(steps: int, terms: int, term: int, num: int, offset: float) -> Tensor:
    """A step of the `term`-th of `terms` equal parts of {0, …, steps − 1} for each of `num` examples: [num], increasing.

    With the examples in random order and offset ~ U[0, 1), every step is drawn with probability terms / steps over the terms.
    """
    place = term + (torch.arange(num, dtype=torch.float64) + offset) / num
    return (place * steps / terms).long().clamp_max(steps - 1)


def _runs(step: Tensor, batch_size: int) -> list[tuple[int, int]]:
    """Ranges [start, stop) of equal steps, at most batch_size long: a batch has one t."""
    edges = [0, *(torch.nonzero(step.diff())[:, 0] + 1).tolist(), len(step)]
    return [
        (start, min(start + batch_size, last))
        for first, last in itertools.pairwise(edges)
        for start in range(first, last, batch_size)
    ]
