"""Which estimator may stand where, and what the terms need of the rest."""

from collections.abc import Iterator
from typing import Literal

import torch

from di4c.contracts import ForwardProcess, LambdaSampler, LossEstimator
from di4c.errors import SpecError
from di4c.losses.options import InputOptions
from di4c.losses.terms import FullNoiseTerm


def number_of_components(components: int | Literal["all"], latent: LambdaSampler) -> int:
    """M; "all" is the number of atoms of a finite prior. SpecError if the prior is not finite, or M not positive."""
    if components == "all":
        if latent.num_atoms is None:
            raise SpecError(
                "objective.components: 'all' needs a λ sampler with finitely many atoms, e.g. latent: categorical"
            )
        return latent.num_atoms
    if components < 1:
        raise SpecError(f"objective.components: at least 1, or 'all'; found {components}")
    return components


def check_terms(
    options: InputOptions, full_noise: FullNoiseTerm | None, process: ForwardProcess, *, others: bool = False
) -> None:
    """SpecError unless there is a term (others: not of these), and the inputs have what each term and its estimator need."""
    for fault in _faults(options, full_noise, process, others):
        raise SpecError(fault)


def _faults(
    options: InputOptions, full_noise: FullNoiseTerm | None, process: ForwardProcess, others: bool
) -> Iterator[str]:
    """What is wrong, the first of it first; what is asked later counts on what was asked before."""
    if options.components_at_a_time is not None and options.components_at_a_time < 1:
        yield f"objective.components_at_a_time: at least 1, or null for all; found {options.components_at_a_time}"
    if not (others or options.has_terms) and full_noise is None:
        yield "objective: at least one of data, consistency, distillation, full_noise must be given"
    if full_noise is not None:
        yield from _faults_of_full_noise(options, full_noise, process)
    if options.consistency is not None and (options.teacher_step is None or options.targets < 1):
        yield "objective.consistency needs objective.teacher_step and objective.targets ≥ 1"
    if options.proposal is not None:
        yield from _faults_of_proposal(options)
        if options.marginal is not None:
            yield "objective.marginal is of λ by its prior, which objective.proposal does not draw; leave one of them out"
    for term, has in (("data", options.data), ("consistency", options.consistency)):
        if has is not None:
            name = type(has.estimator).__name__
            for fault in _faults_of_estimator(options, term, has.estimator):
                yield f"objective.{term}.estimator: {name} {fault}"


def _faults_of_full_noise(options: InputOptions, term: FullNoiseTerm, process: ForwardProcess) -> Iterator[str]:
    """Examples must share their input at t = 1, and clusters have atoms."""
    if process.mask_index is None:
        yield f"objective.full_noise is for processes with a mask, where all of a class are alike at t = 1; found {type(process).__name__}"
    if term.clustered and options.latent.num_atoms is None:
        yield "objective.full_noise.clustered needs a prior of λ with finitely many atoms, e.g. latent: categorical"


def _faults_of_proposal(options: InputOptions) -> Iterator[str]:
    """Every term must have a use for λ of a posterior, and the λ sampler a family of them."""
    latent, name = options.latent, type(options.latent).__name__
    if latent.proposal_width is None or options.components == latent.num_atoms:
        none, enumerated = "has no family of posteriors", "is enumerated, which no proposal betters"
        why = none if latent.proposal_width is None else enumerated
        yield f"objective.proposal: latent {name} {why}; take gaussian, or product-categorical with more atoms"
    if options.components == 1 and not latent.proposal(torch.zeros(1, 1, latent.proposal_width)).reparameterised:
        yield f"objective.proposal: latent {name} needs objective.components ≥ 2, draws to compare with one another"
    if options.data is None:
        yield "objective.proposal: needs the data term, by which the posterior learns at every step"
    if options.distillation is not None and options.distillation_time is None:
        yield "objective.proposal: the distillation term needs λ of the prior, so times of its own (distillation_time)"
    for term, has in (("data", options.data), ("consistency", options.consistency)):
        if has is not None and (has.estimator.needs != {"joint"} or has.estimator.assumes_independence):
            told = "takes λ of the prior; with objective.proposal take monte-carlo"
            yield f"objective.{term}.estimator: {type(has.estimator).__name__} {told}"


def _faults_of_estimator(options: InputOptions, term: str, estimator: LossEstimator) -> Iterator[str]:
    """Where an estimator asks for what its term, or the λ sampler, does not give."""
    latent, components, targets = options.latent, options.components, options.targets
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
