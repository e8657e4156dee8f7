"""What a spec says of what is drawn for the losses."""

from dataclasses import dataclass
from typing import Literal

from di4c.contracts import LambdaSampler, LossEstimator, Sampler, TimeSampler
from di4c.losses.proposal import ProposalOptions
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, MarginalTerm, TeacherStep


@dataclass(frozen=True)
class InputOptions:
    """What Di4C is given of what is drawn; see objective.Di4C. A term that is None is left out."""

    latent: LambdaSampler
    sampler: Sampler
    components: int
    time: TimeSampler
    targets: int = 0
    teacher_step: TeacherStep | None = None
    proposal: ProposalOptions | None = None
    data: DataTerm | None = None
    consistency: ConsistencyTerm | None = None
    distillation: DistillationTerm | None = None
    marginal: MarginalTerm | None = None
    distillation_time: TimeSampler | None = None
    distillation_copies: int = 1
    target_mode: str = "eval"
    x_u: Literal["shared", "each"] = "shared"
    label_dropout: float = 0.0
    components_at_a_time: int | None = None
    chunk_bytes: int | None = None

    @property
    def has_terms(self) -> bool:
        """Whether there is one of the terms at t."""
        return any((self.data, self.consistency, self.distillation, self.marginal))

    @property
    def estimators(self) -> dict[str, LossEstimator]:
        """Those of the terms that have one."""
        terms: dict[str, DataTerm | ConsistencyTerm | None] = {"data": self.data, "consistency": self.consistency}
        return {name: term.estimator for name, term in terms.items() if term is not None}

    @property
    def same_lambda(self) -> bool:
        """Whether all examples have the same λ: its law is enumerated."""
        return self.components == self.latent.num_atoms and self.proposal is None

    @property
    def needs_target_joint(self) -> bool:
        """Whether the target's λ are those of the student at t, and the target scores its samples under all of them."""
        return self.consistency is not None and "target_joint" in self.consistency.estimator.needs
