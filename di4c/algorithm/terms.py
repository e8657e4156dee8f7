"""The three terms of Di4C's loss: weights and regions, what they ask of a scene, and which estimator may stand where."""

from dataclasses import dataclass
from typing import Any, Literal

from di4c.algorithm.scene import SceneLaw
from di4c.algorithm.times import Gate
from di4c.contracts import LambdaSampler, LossEstimator
from di4c.errors import SpecError


@dataclass(frozen=True)
class DataTerm:
    """weight·( a(t)·correlated part + marginal part ); a = gate."""

    weight: float
    estimator: LossEstimator
    gate: Gate


@dataclass(frozen=True)
class ConsistencyTerm:
    """weight·[above ≤ t]·( correlated part + marginal part ), on a random `probability` of the steps, weighted by its inverse.

    The target costs a few forward passes more; computing it on some steps only keeps the expected loss and saves them.
    """

    weight: float
    estimator: LossEstimator
    above: float = 0.0
    probability: float = 1.0

    def __post_init__(self):
        if not 0 < self.probability <= 1:
            raise SpecError(f"objective.consistency.probability: in (0, 1]; found {self.probability}")


@dataclass(frozen=True)
class DistillationTerm:
    """weight·[t < below]·surrogate (strict; `below_inclusive` for ≤), or at times of its own if the scene draws them."""

    weight: float
    below: float = 1.0
    below_inclusive: bool = False


def scene_options(
    data: DataTerm | None, consistency: ConsistencyTerm | None, distillation: DistillationTerm | None
) -> dict[str, Any]:
    """What the terms ask of a scene, as options of SceneLaw."""
    options: dict[str, Any] = {}
    if data is not None:
        options["needs_teacher"] = "kl" in data.estimator.needs
    if consistency is not None:
        needs = consistency.estimator.needs
        options |= {"far_above": consistency.above, "far_probability": consistency.probability}
        options |= {"needs_marginals": "kl" in needs, "needs_target_joint": "target_joint" in needs}
    if distillation is not None:
        options["near_below"] = distillation.below
    return options


def number_of_components(components: int | Literal["all"], latent: LambdaSampler) -> int:
    """M; "all" is the number of atoms of a finite law. SpecError if the law is not finite, or M not positive."""
    if components == "all":
        if latent.num_atoms is None:
            raise SpecError("objective.components: 'all' needs a law of λ with finitely many atoms, e.g. latent: categorical")
        return latent.num_atoms
    if components < 1:
        raise SpecError(f"objective.components: at least 1, or 'all'; found {components}")
    return components


def check_terms(
    law: SceneLaw, data: DataTerm | None, consistency: ConsistencyTerm | None, distillation: DistillationTerm | None
) -> None:
    """SpecError unless there is a term, and the scenes have what each term and its estimator need."""
    if law.components_at_a_time is not None and law.components_at_a_time < 1:
        raise SpecError(f"objective.components_at_a_time: at least 1, or null for all; found {law.components_at_a_time}")
    if data is None and consistency is None and distillation is None:
        raise SpecError("objective: at least one of data, consistency, distillation must be given")
    if consistency is not None and (law.teacher_step is None or law.targets < 1):
        raise SpecError("objective.consistency needs objective.teacher_step and objective.targets ≥ 1")
    if data is not None:
        _check_estimator(law, "data", data.estimator)
    if consistency is not None:
        _check_estimator(law, "consistency", consistency.estimator)


def _check_estimator(law: SceneLaw, term: str, estimator: LossEstimator) -> None:
    """SpecError where an estimator asks for what its term, or the law of λ, does not give."""
    where = f"objective.{term}.estimator: {type(estimator).__name__}"
    _check_independence(law, where, estimator)
    if "log_law" in estimator.needs:
        numbers = (law.components, law.targets) if term == "consistency" else (law.components,)
        if set(numbers) != {law.latent.num_atoms} or law.x_u != "shared":
            raise SpecError(
                f"{where} sums over every λ: components (and targets) must be the {law.latent.num_atoms} atoms of a finite law, "
                f"and x_u shared; found {', '.join(map(str, numbers))} and {law.x_u}"
            )
    if "target_joint" not in estimator.needs:
        return
    if term == "data":
        raise SpecError(f"{where} needs a sample's own λ, which data do not have; it is for objective.consistency")
    if law.targets != law.components or law.x_u != "shared":
        found = f"{law.targets}, {law.components} and {law.x_u}"
        raise SpecError(f"{where} needs targets = components and x_u: shared; found {found}")


def _check_independence(law: SceneLaw, where: str, estimator: LossEstimator) -> None:
    """SpecError unless the M draws of λ are independent, if the estimator assumes so; a single draw is."""
    if not estimator.assumes_independence:
        return
    if law.components == law.latent.num_atoms:
        raise SpecError(f"{where} assumes random λ, but all {law.components} atoms are enumerated; take monte-carlo, exact here")
    if law.components > 1 and not law.latent.independent:
        raise SpecError(
            f"{where} assumes independent draws of λ, but those of latent: {type(law.latent).__name__} depend on one another; take a "
            "law that draws them independently (uniform, gaussian, categorical with independent: true), or the estimator monte-carlo"
        )
