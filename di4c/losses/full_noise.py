"""The data term at t = 1, with examples of its own: there all of a class share one input, and cost what one of them does.

    E_{x_0} −log Σ_k w_k ∏_d p^θ(x_0^d | x_1; λ_k)

At t = 1 alone correlation is λ's to carry, and its gradient drowns in small batches. Hundreds of examples against hundreds of
components are one evaluation of the network for each class.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Batch, Draws, ForwardProcess, LambdaSampler, Split, Teacher, placed
from di4c.contracts.objective import dropped_labels
from di4c.errors import SpecError, not_negative
from di4c.losses.clusters import Clusters
from di4c.losses.options import InputOptions
from di4c.losses.rollouts import Pool
from di4c.mixture.equal_inputs import draws_masks, equal_inputs, once
from di4c.mixture.student import MixtureStudent
from di4c.mixture.sums import Query, statistics


@dataclass(frozen=True)
class FullNoiseTerm:
    """weight·( data term at t = 1 ), on data of its own.

    ratio: how many of them for each example of the batch. alone: for so many steps from the first it is the whole loss. clustered: in
    so many steps from the first λ is told, as x_0's cluster (a mixture of products fitted by EM, an atom each): components start apart.
    components: how many λ, the same for all examples; all atoms of a finite prior if not said.
    """

    weight: float
    ratio: int = 1
    alone: int = 0
    clustered: int = 0
    components: int | Literal["all"] = "all"

    def __post_init__(self):
        not_negative("objective.full_noise.weight", self.weight)
        if self.ratio < 1 or self.alone < 0 or self.clustered < 0:
            raise SpecError(
                "objective.full_noise: ratio at least 1, alone and clustered at least 0; found "
                f"{self.ratio}, {self.alone} and {self.clustered}"
            )
        if self.clustered and self.components != "all":
            raise SpecError("objective.full_noise.clustered: a cluster is an atom of λ; leave components at 'all'")

    def faults(self, latent: LambdaSampler, process: ForwardProcess) -> Iterator[str]:
        """Examples must share their input at t = 1, and clusters have atoms."""
        if process.mask_index is None:
            yield f"objective.full_noise is for processes with a mask, where all of a class are alike at t = 1; found {type(process).__name__}"
        if self.clustered and latent.num_atoms is None:
            yield "objective.full_noise.clustered needs a prior of λ with finitely many atoms, e.g. latent: categorical"


@dataclass
class FullNoise:
    """The term with what it needs: `open_split` gives the data, `number` is the number of λ."""

    term: FullNoiseTerm
    number: int
    open_split: Callable[[], Split] | None
    clusters: Clusters | None = None

    @cached_property
    def split(self) -> Split:
        assert self.open_split is not None, "objective.full_noise draws from the data: give open_split"
        return self.open_split()

    def begin_step(self, step: int, draws: Draws, latent: LambdaSampler, num_states: int) -> None:
        """Finds the clusters where this step has a use for them. Collective; a resumed run finds the same."""
        if step < self.term.clustered and self.clusters is None:
            self.clusters = Clusters.of(self.split, latent.log_weights(self.number), num_states, draws)

    def draw(self, draws: Draws) -> Batch:
        """`ratio` examples of the data for each of the draws': [B·ratio], on their device."""
        draws = draws.repeat(self.term.ratio)
        index = replace(draws, device="cpu").integers(len(self.split))
        found = self.split.batch(index, replace(draws.child("augment"), device="cpu"))
        return Batch(*(None if x is None else placed(x, draws.device) for x in (found.x_0, found.cond)))

    def loss(
        self,
        options: InputOptions,
        teacher: Teacher,
        student: MixtureStudent,
        pool: Pool | None,
        draws: Draws,
        step: int,
    ) -> dict[str, Tensor]:
        """{"full_noise": [B] nats, weighted, "full_noise_correlation": [B], what the mixture gains on its product of marginals}.

        On `ratio` examples for each of the draws', of the pool where there is one. While λ is told the term is
        −Σ_k p(k | x_0) log w_k p^θ(x_0 | x_1; λ_k), k the cluster.
        """
        several = draws.repeat(self.term.ratio)
        batch = self.draw(draws) if pool is None else pool.batch(several)
        x_0, size = batch.x_0, draws.count
        cond = dropped_labels(batch.cond, options.label_dropout, several)
        x_1 = teacher.process.prior(x_0.shape[1], several.child("x_1"))
        t = torch.ones(len(x_1), dtype=torch.float64, device=x_1.device)
        shared = Draws(draws.seed, path=draws.path, device=draws.device).child("lambda")
        lam, log_weights = options.latent.weighted(self.number, shared)  # [1, M, L]
        sharing = None if draws_masks(student) else equal_inputs(x_1, t, cond)
        prediction = once(
            student.predict, sharing, x_1, t, cond, lam.expand(len(x_1), -1, -1),
            log_weights=log_weights, at_a_time=options.components_at_a_time,
        )  # fmt: skip
        query = Query(frozenset({"joint", "marginal"}), x_0[:, None])
        found = statistics(prediction, [query], chunk_bytes=options.chunk_bytes)[0]
        weighted = found.joint[:, 0] + found.log_weights.to(found.joint)
        log_p = weighted.logsumexp(-1)
        told = step < self.term.clustered
        scored = (self.clusters.of_examples(x_0).to(weighted) * weighted).sum(-1) if told else log_p
        values = {
            "full_noise": -self.term.weight * scored,
            "full_noise_correlation": (log_p - found.marginal[:, 0]).detach(),
        }
        dtype = prediction.accumulation_dtype
        return {name: value.unflatten(0, (size, -1)).mean(1).to(dtype) for name, value in values.items()}
