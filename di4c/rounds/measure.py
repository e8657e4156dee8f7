"""What the teacher and a finished round are judged by."""

import csv
import dataclasses
from pathlib import Path


from di4c.config.build import build_data, build_process, build_teacher
from di4c.config.registry import Registry
from di4c.config.rounds_spec import StopSpec
from di4c.config.spec import Spec
from di4c.errors import SpecError
from di4c.evaluation.comparison import entrant, sweep_of
from di4c.evaluation.loaded import LoadedModel, load
from di4c.evaluation.ranks import Ranks
from di4c.evaluation.table import REFERENCE, rows_of

Values = dict[str, dict[str, float]]
Directions = dict[str, bool | None]


def of_teacher(spec: Spec, store: Path, ranks: Ranks) -> tuple[Values, Directions]:
    """`of_model` of the teacher that a spec's first round distils. Collective."""
    registry = Registry.default(spec.plugins)
    data = build_data(spec, registry)
    teacher = build_teacher(spec, registry, data, build_process(spec, registry, data))
    return of_model(LoadedModel(spec.train.run, spec, teacher=teacher, device=ranks.device), REFERENCE, spec, store, ranks)


def of_run(folder: Path, spec: Spec, store: Path, ranks: Ranks) -> tuple[Values, Directions]:
    """`of_model` of a run's student. Collective."""
    return of_model(load(folder, device=ranks.device), folder.name, spec, store, ranks)


def of_model(model: LoadedModel, name: str, spec: Spec, store: Path, ranks: Ranks) -> tuple[Values, Directions]:
    """What eval.metrics say of a model at the stop rule's number of steps, and whether higher is better. Collective.

    The whole law of λ, the eval section's samples and seeds; nothing on ranks but the first.
    """
    settings = dataclasses.replace(spec.eval, steps=[spec.rounds.stop.steps])
    compared = entrant(name, None if model.student is None else "inf", model)
    found = sweep_of(model, settings, store, ranks).run([compared])
    if not ranks.first:
        return {}, {}
    return rows_of(found)[0]["metrics"], {key: better for m in found for key, better in m.higher_is_better.items()}


def of_training(folder: Path) -> tuple[Values, Directions]:
    """The last value of every column of a run's metrics.csv; lower is taken for better."""
    values: Values = {}
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values |= {name: {"mean": float(text), "std": 0.0} for name, text in row.items() if text and name != "step"}
    return values, dict.fromkeys(values, False)


def direction(stop: StopSpec, directions: Directions) -> bool:
    """Whether higher is better of the stop rule's metric. Raises SpecError where it is not measured, or that is not known."""
    if stop.metric not in directions:
        source = "eval.metrics report" if stop.steps else "metrics.csv (no rounds.stop.steps is given) has"
        raise SpecError(f"rounds.stop.metric: no {stop.metric!r}; {source} {', '.join(directions)}.")
    better = directions[stop.metric] if stop.higher_is_better is None else stop.higher_is_better
    if better is None:
        raise SpecError(f"rounds.stop: which way {stop.metric!r} is good is not known; set rounds.stop.higher_is_better.")
    return better
