"""How many components a trained student needs.

On training examples at the run's own times, for each M: the estimate of −log p^θ (it falls to the truth as M grows), its standard
deviation over λ, and that of the gradient over λ in units of the gradient's from one example to another: below 1, more components
do less for the noise than a larger batch. Suggests the smallest M that the next does not beat by more than --tolerance nats.
"""

import argparse
import time

from di4c.command_line import amount_argument, command, number, numbers, path_argument
from di4c.config.build import Parts, build_objective
from di4c.contracts import Draws
from di4c.diagnostics.advice import TOLERANCE_NATS, Noised, suggested_components
from di4c.diagnostics.mixture import Studied
from di4c.errors import SpecError
from di4c.evaluation.loaded import load
from di4c.evaluation.repeated import gradients, standard_deviation


@command
def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    options = _parser(prog).parse_args(arguments)
    sizes = sorted(set(options.sizes))
    model = load(options.run)
    if model.student is None:
        raise SpecError(f"{options.run}: a model without λ has no components")
    teacher = model.teacher()._teacher
    parts = Parts(model.data, model.process, teacher, model.student, model.latent)
    trained = build_objective(model.spec, model.registry, parts).options
    draws = Draws(options.seed, count=options.examples, device=model.device)
    split = model.data.checked_split("train", model.process)
    batch = split.batch(draws.child("example").integers(len(split)).cpu()).to(model.device)
    t, _ = trained.time.sample(draws.child("t"))
    x_t = model.process.corrupt(batch.x_0, t, draws.child("x_t"))
    noised = Noised(Studied(model.student, model.latent, model.process), batch, x_t, t)
    curve = noised.curve(sizes, draws.child("sizes"))
    model.student.requires_grad_(True)
    between_examples = _between_examples(noised, max(sizes), draws.child("examples"))
    print(f"{'M':>5} {'−log p (nats)':>14} {'sd over λ':>10} {'gradient sd':>12} {'CPU s':>7}")
    for size in curve:
        begin = time.process_time()
        over_lambda = _over_lambda(noised, size.components, options.repeats, draws.child("gradient", size.components))
        seconds = (time.process_time() - begin) / options.repeats
        print(
            f"{size.components:>5} {size.nll:>14.3f} {size.sd:>10.3f} {over_lambda / between_examples:>12.3f} {seconds:>7.2f}"
        )
    found = suggested_components(curve, options.tolerance)
    print(
        f"suggested: components: {found}"
        + (" or more" if found == sizes[-1] else "")
        + f" (the run has {trained.components})"
    )
    return 0


def _over_lambda(noised: Noised, components: int, repeats: int, draws: Draws) -> float:
    """Standard deviation over λ of the gradient of one example: that of the batch's mean times √B."""
    loss = lambda k: noised.nll(components, draws.child(k)).mean()
    return standard_deviation(gradients(loss, noised.of.student.parameters(), repeats)[1]) * len(noised.x_t) ** 0.5


def _between_examples(noised: Noised, components: int, draws: Draws) -> float:
    """Standard deviation of the gradient over the examples, λ as exact as the largest M makes it."""
    nll = noised.nll(components, draws)
    return standard_deviation(
        gradients(lambda k: nll[k], noised.of.student.parameters(), len(nll), retain_graph=True)[1]
    )


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, type=path_argument, help="run folder of a student")
    parser.add_argument("--sizes", type=numbers(1), default=[4, 8, 16, 32, 64], metavar="M,M…", help="the M to try")
    parser.add_argument(
        "--tolerance", type=amount_argument, default=TOLERANCE_NATS, help="nats that doubling M may still gain"
    )
    parser.add_argument("--examples", type=number(2), default=32)
    parser.add_argument(
        "--repeats", type=number(2), default=12, help="draws of λ for the gradient's spread, at least 2"
    )
    parser.add_argument("--seed", type=number(0), default=0)
    return parser
