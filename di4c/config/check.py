"""A spec checked without data, networks and files: names, options, and what fits what."""

from collections.abc import Mapping

from di4c.config.construct import plan
from di4c.config.fitting import (
    check_head_class,
    check_samplers,
    check_takes_student,
    check_trains_student,
    made_of_a_student,
)
from di4c.config.foresight import foresee
from di4c.config.kinds import KINDS
from di4c.config.pipeline import build_pipeline, planned_specs
from di4c.config.registry import Registry
from di4c.config.spec import Spec, entries
from di4c.config.trained import trained_entry
from di4c.errors import CheckpointError, located

LACKING = {
    "pretrain": frozenset({"student", "latent"}),
    "distill": frozenset(),
    "tokenizer": frozenset({"process", "teacher", "student", "latent"}),
}
"""What an objective is not given, by the task."""


def check(spec: Spec, registry: Registry) -> list[tuple[str, str]]:
    """(key path, class) of every part, its name resolved and its options checked; reads no data and makes no network.

    Raises SpecError or RegistryError as `build` would, as far as constructors tell without these (see `foresee`). What a part points
    to may not exist yet (a teacher's run): then the second item says so.
    """
    told, planned, kinds = [], {}, {}
    with located(spec.source):
        for where, kind, entry in entries(spec):
            shown = registry.find(kind, entry["name"]).told
            try:
                full, trained = trained_entry(entry) if kind == "teachers" else (entry, None)
                if trained is not None and trained.is_student:
                    check_takes_student(registry, full, trained)
                provided = KINDS[kind].provided - LACKING[spec.task] if kind == "objectives" else KINDS[kind].provided
                planned[where], kinds[where] = plan(registry, kind, full, provided, where), kind
            except CheckpointError as error:
                shown += f" ({_checked_without_run(registry, entry, where)}; {error})"
            told.append((where, shown))
        if spec.student is not None:
            check_head_class(registry, spec.student.head["name"], planned)
        if spec.task == "distill":
            check_trains_student(spec.objective["name"], planned["objective"])
        check_samplers(registry, planned)
        foresee(planned, kinds)
    if spec.pipeline is not None:
        for name, run in planned_specs(spec, build_pipeline(spec, registry)).items():
            told += [(f"{name}: {where}", shown) for where, shown in check(run, registry) if (where, shown) not in told]
    return told


def _checked_without_run(registry: Registry, entry: Mapping, where: str) -> str:
    """What could be checked of a teacher whose run is not there yet: its options, if it is made of a student and takes none of it."""
    if not made_of_a_student(registry, entry["name"]):
        return "options not checked"
    options = {key: value for key, value in entry.items() if key != "run"}
    plan(registry, "teachers", options, KINDS["teachers"].provided, where)
    return "its run not checked"
