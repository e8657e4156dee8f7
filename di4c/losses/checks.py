"""Which estimator may stand where, and what the terms need of the rest."""

from collections.abc import Iterator
from typing import Literal

from di4c.contracts import ForwardProcess, LambdaSampler, LossEstimator
from di4c.errors import SpecError
from di4c.losses.full_noise import FullNoiseTerm
from di4c.losses.odd_numbers import empty_regions, odd_numbers
from di4c.losses.options import InputOptions


def number_of_components(components: int | Literal["all"], latent: LambdaSampler, key: str = "components") -> int:
    """M; "all" is the number of atoms of a finite prior. SpecError, which names the key, if the prior is not finite, or M not positive."""
    if components == "all":
        if latent.num_atoms is None:
            raise SpecError(
                f"objective.{key}: 'all' needs a λ sampler with finitely many atoms, e.g. latent: categorical"
            )
        return latent.num_atoms
    if components < 1:
        raise SpecError(f"objective.{key}: at least 1, or 'all'; found {components}")
    return components


def faults(
    options: InputOptions, full_noise: FullNoiseTerm | None, process: ForwardProcess, *, others: bool = False
) -> Iterator[str]:
    """Unless there is a term (others: not of these), and the inputs have what each term and its estimator need, what is wrong.

    The first of it first; what is asked later counts on what was asked before.
    """
    yield from odd_numbers(options)
    if not (others or options.has_terms) and full_noise is None:
        yield "objective: at least one of data, consistency, distillation, full_noise must be given"
    if full_noise is not None:
        yield from full_noise.faults(options.latent, process)
    if options.consistency is not None and (options.teacher_step is None or options.targets < 1):
        yield "objective.consistency needs objective.teacher_step and objective.targets ≥ 1"
    yield from empty_regions(options)
    estimators = options.estimators
    if options.proposal is not None:
        distils = options.distillation is not None and options.distillation_time is None
        yield from options.proposal.faults(options.latent, options.components, estimators, distils)
        if options.marginal is not None:
            yield "objective.marginal is of λ by its prior, which objective.proposal does not draw; leave one of them out"
    for term, estimator in estimators.items():
        for fault in _faults_of_estimator(options, term, estimator):
            yield f"objective.{term}.estimator: {type(estimator).__name__} {fault}"


def _faults_of_estimator(options: InputOptions, term: str, estimator: LossEstimator) -> Iterator[str]:
    """Where an estimator asks for what its term, or the λ sampler, does not give."""
    latent, components, targets = options.latent, options.components, options.targets
    if components < estimator.least_components:
        yield f"needs objective.components ≥ {estimator.least_components}; found {components}"
    if estimator.assumes_independence and components == latent.num_atoms:
        yield f"assumes random λ, but all {components} atoms are enumerated; take monte-carlo, exact here"
    if estimator.assumes_independence and components > 1 and not latent.independent:
        yield (
            f"assumes independent draws of λ, but those of latent: {type(latent).__name__} depend on one another; take a "
            "λ sampler that draws them independently (uniform, gaussian, categorical with independent: true), or the estimator monte-carlo"
        )
    if "log_law" in estimator.needs:
        numbers = (components, targets) if term == "consistency" else (components,)
        if set(numbers) != {latent.num_atoms} or options.x_u != "shared":
            yield (
                f"sums over every λ: components (and targets) must be the {latent.num_atoms} atoms of a finite prior, "
                f"and x_u shared; found {', '.join(map(str, numbers))} and {options.x_u}"
            )
    if "target_joint" in estimator.needs and term == "data":
        yield "needs a sample's own λ, which data do not have; it is for objective.consistency"
    if "target_joint" in estimator.needs and (targets != components or options.x_u != "shared"):
        yield f"needs targets = components and x_u: shared; found {targets}, {components} and {options.x_u}"
