"""Which estimator may stand where, and what the terms need of the rest."""

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
    data, consistency = options.data, options.consistency
    if options.components_at_a_time is not None and options.components_at_a_time < 1:
        raise SpecError(
            f"objective.components_at_a_time: at least 1, or null for all; found {options.components_at_a_time}"
        )
    if not (others or options.has_terms) and full_noise is None:
        raise SpecError("objective: at least one of data, consistency, distillation, full_noise must be given")
    if full_noise is not None:
        _check_full_noise(options, full_noise, process)
    if consistency is not None and (options.teacher_step is None or options.targets < 1):
        raise SpecError("objective.consistency needs objective.teacher_step and objective.targets ≥ 1")
    if options.proposal is not None:
        _check_proposal(options)
        if options.marginal is not None:
            raise SpecError(
                "objective.marginal is of λ by its prior, which objective.proposal does not draw; leave one of them out"
            )
    if data is not None:
        _check_estimator(options, "data", data.estimator)
    if consistency is not None:
        _check_estimator(options, "consistency", consistency.estimator)


def _check_estimator(options: InputOptions, term: str, estimator: LossEstimator) -> None:
    """SpecError where an estimator asks for what its term, or the λ sampler, does not give."""
    where = f"objective.{term}.estimator: {type(estimator).__name__}"
    _check_independence(options, where, estimator)
    if "log_law" in estimator.needs:
        numbers = (options.components, options.targets) if term == "consistency" else (options.components,)
        if set(numbers) != {options.latent.num_atoms} or options.x_u != "shared":
            raise SpecError(
                f"{where} sums over every λ: components (and targets) must be the {options.latent.num_atoms} atoms of a finite prior, "
                f"and x_u shared; found {', '.join(map(str, numbers))} and {options.x_u}"
            )
    if "target_joint" not in estimator.needs:
        return
    if term == "data":
        raise SpecError(f"{where} needs a sample's own λ, which data do not have; it is for objective.consistency")
    if options.targets != options.components or options.x_u != "shared":
        found = f"{options.targets}, {options.components} and {options.x_u}"
        raise SpecError(f"{where} needs targets = components and x_u: shared; found {found}")


def _check_full_noise(options: InputOptions, term: FullNoiseTerm, process: ForwardProcess) -> None:
    """SpecError unless examples share their input at t = 1, and clusters have atoms."""
    if process.mask_index is None:
        raise SpecError(
            f"objective.full_noise is for processes with a mask, where all of a class are alike at t = 1; found {type(process).__name__}"
        )
    if term.clustered and options.latent.num_atoms is None:
        raise SpecError(
            "objective.full_noise.clustered needs a prior of λ with finitely many atoms, e.g. latent: categorical"
        )


def _check_proposal(options: InputOptions) -> None:
    """SpecError unless every term has a use for λ of a posterior, and the λ sampler a family of them."""
    latent, name = options.latent, type(options.latent).__name__
    if latent.proposal_width is None or options.components == latent.num_atoms:
        why = (
            "has no family of posteriors"
            if latent.proposal_width is None
            else "is enumerated, which no proposal betters"
        )
        raise SpecError(
            f"objective.proposal: latent {name} {why}; take gaussian, or product-categorical with more atoms"
        )
    if options.components == 1 and not latent.proposal(torch.zeros(1, 1, latent.proposal_width)).reparameterised:
        raise SpecError(
            f"objective.proposal: latent {name} needs objective.components ≥ 2, draws to compare with one another"
        )
    if options.data is None:
        raise SpecError("objective.proposal: needs the data term, by which the posterior learns at every step")
    if options.distillation is not None and options.distillation_time is None:
        raise SpecError(
            "objective.proposal: the distillation term needs λ of the prior, so times of its own (distillation_time)"
        )
    for term, has in (("data", options.data), ("consistency", options.consistency)):
        if has is not None and (has.estimator.needs != {"joint"} or has.estimator.assumes_independence):
            raise SpecError(
                f"objective.{term}.estimator: {type(has.estimator).__name__} takes λ of the prior; with objective.proposal take monte-carlo"
            )


def _check_independence(options: InputOptions, where: str, estimator: LossEstimator) -> None:
    """SpecError unless the M draws of λ are independent, if the estimator assumes so; a single draw is."""
    if not estimator.assumes_independence:
        return
    if options.components == options.latent.num_atoms:
        raise SpecError(
            f"{where} assumes random λ, but all {options.components} atoms are enumerated; take monte-carlo, exact here"
        )
    if options.components > 1 and not options.latent.independent:
        raise SpecError(
            f"{where} assumes independent draws of λ, but those of latent: {type(options.latent).__name__} depend on one another; take a "
            "λ sampler that draws them independently (uniform, gaussian, categorical with independent: true), or the estimator monte-carlo"
        )
