"""How many components M a run needs, from the measured bias and variance of −log p^θ over draws of λ."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from di4c.contracts import Batch, Draws, TimeSampler
from di4c.diagnostics.mixture import Studied
from di4c.mixture.sums import Query, statistics

ADVICE_EXAMPLES = 16
"""Examples of a micro-batch on which a run tries other numbers of components."""
TOLERANCE_NATS = 0.1
"""A loss that doubling M lowers by less than this is as good as unbiased (its gradient is then off by a few per cent)."""


@dataclass(frozen=True)
class Size:
    """−log p^θ estimated by M components: mean over examples and sets of λ, and standard deviation over sets, nats."""

    components: int
    nll: float
    sd: float


@dataclass(frozen=True)
class Noised:
    """A batch, and the student that sees it noised: x_t [B, D] at t [B]."""

    of: Studied
    batch: Batch
    x_t: Tensor
    t: Tensor

    @torch.no_grad()
    def curve(self, sizes: Iterable[int], draws: Draws, *, sets: int = 2) -> list[Size]:
        """A Size for each M of `sizes`, from `sets` (at least 2) or more sets of λ an example: as many as the largest M allows."""
        sizes = sorted(set(sizes))
        found = []
        for components in sizes:
            number = sets * max(sizes) // components
            nll = torch.stack([self.nll(components, draws.child("size", components, k)) for k in range(number)])
            found.append(Size(components, float(nll.mean()), float(nll.var(0).mean().sqrt())))
        return found

    def nll(self, components: int, draws: Draws) -> Tensor:
        """−log Σ_m w_m ∏_d p^d(x_0^d | x_t; λ_m): [B] nats, λ and weights by the λ sampler; biased upwards unless it is enumerated (Jensen)."""
        lam, log_weights = self.of.latent.weighted(components, draws)
        query = Query(frozenset({"joint"}), self.batch.x_0[:, None])
        groups = lam.split(self.of.at_a_time or components, 1)
        predictions = (self.of.student.predict(self.x_t, self.t, self.batch.cond, some) for some in groups)
        joint = torch.cat([statistics(prediction, [query])[0].joint[:, 0] for prediction in predictions], -1)
        return -(joint + log_weights.to(joint)).logsumexp(-1)


@torch.no_grad()
def advice(
    of: Studied, time: TimeSampler, batch: Batch, components: int, draws: Draws, *, tolerance: float = TOLERANCE_NATS
) -> dict[str, float]:
    """What 4M components would gain over M = `components` on noised data, and the M that this suggests.

    {"gain_by_4m_nats", "suggested_components"}, from the first ADVICE_EXAMPLES examples of `batch`.
    """
    few = draws.rows(0, min(len(batch.x_0), ADVICE_EXAMPLES))
    batch = Batch(batch.x_0[: few.count], None if batch.cond is None else batch.cond[: few.count])
    t, _ = time.sample(few.child("t"))
    x_t = of.process.corrupt(batch.x_0, t, few.child("x_t"))
    sizes = {max(1, components // 2), *(components * k for k in (1, 2, 4))}
    curve = Noised(replace(of, at_a_time=of.at_a_time or components), batch, x_t, t).curve(sizes, few.child("sizes"))
    gain = next(size.nll for size in curve if size.components == components) - curve[-1].nll
    return {"gain_by_4m_nats": gain, "suggested_components": float(suggested_components(curve, tolerance))}


def suggested_components(curve: list[Size], tolerance: float = TOLERANCE_NATS) -> int:
    """The smallest M of the curve that the next size does not beat by more than `tolerance` nats; the largest if all are.

    The estimate's mean falls to −log p^θ as M grows (Jensen), and for independent draws the bias left at M is about
    M'/(M' − M) times what going on to M' gains.
    """
    for size, larger in itertools.pairwise(curve):
        if size.nll - larger.nll <= tolerance:
            return size.components
    return curve[-1].components
