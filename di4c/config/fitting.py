"""Which parts fit one another, as far as their classes say; errors that name the spec."""

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

from di4c.config.annotations import hints_of
from di4c.config.construct import Construction, arms_of
from di4c.config.kinds import MADE_OF_A_STUDENT
from di4c.config.registry import Registry
from di4c.config.trained import TrainedRun
from di4c.contracts import Backbone, ForwardProcess, Sampler
from di4c.errors import RegistryError, SpecError

UNKNOWN = frozenset({"unknown"})
"""What a head needs that does not say so: it fits nothing."""


def check_takes_student(registry: Registry, entry: Mapping, trained: TrainedRun) -> None:
    """SpecError unless the named teacher can be made of a student."""
    if made_of_a_student(registry, entry["name"]):
        return
    told = f"teacher.name: {trained.run} is a distilled student, and {entry['name']!r} is not made of one."
    fitting = [t.name for t in registry.targets("teachers") if made_of_a_student(registry, t.name)]
    raise SpecError(f"{told} Teachers that are: {', '.join(fitting) or 'none'}.")


def check_trains_student(name: str, objective: Construction) -> None:
    """SpecError where the objective of a distillation asks for no student: it would train the teacher."""
    if "student" not in objective.parameters:
        raise SpecError(
            f"objective.name: {name!r} trains no student (it is for task pretrain); task distill needs one that does"
        )


def made_of_a_student(registry: Registry, teacher: str) -> bool:
    """Whether a teacher's constructor says so by its parameters; of one that cannot be imported nothing is known."""
    try:
        return set(inspect.signature(registry.resolve("teachers", teacher)).parameters) >= MADE_OF_A_STUDENT
    except (RegistryError, TypeError, ValueError):
        return False


def check_head(registry: Registry, name: str, needs: frozenset, backbone: type, accepts: frozenset) -> None:
    if needs <= accepts:
        return
    heads = _importable(registry, "student_heads")
    fitting = [name for name, head in heads.items() if getattr(head, "needs", UNKNOWN) <= accepts]
    raise SpecError(
        f"student.head: {name!r} needs {_listed(needs)}, but {backbone.__name__} accepts {_listed(accepts)}. "
        f"Heads that fit: {', '.join(fitting) or 'none'}."
    )


def check_keeps_predictions(sampler: Sampler, backbone: Backbone, where: str) -> None:
    """SpecError where a sampler that keeps predictions meets a network that would give others at another time."""
    if sampler.keeps_predictions and backbone.reads_time:
        raise SpecError(
            f"{where}: {type(sampler).__name__} keeps predictions over steps (cached: true), but {type(backbone).__name__} reads the "
            "time: they would be stale; use cached: false, or a network that ignores t (`reads_time = False`)"
        )


def check_head_class(registry: Registry, name: str, planned: Mapping[str, Construction]) -> None:
    """`check_head` before anything is built, where the classes already say what they need and accept."""
    if not {"teacher", "student.head"} <= set(planned) or "backbone" not in planned["teacher"].nested:
        return
    head, backbone = planned["student.head"].factory, planned["teacher"].nested["backbone"].factory
    needs, accepts = getattr(head, "needs", None), getattr(backbone, "accepts", None)
    if isinstance(needs, frozenset) and isinstance(accepts, frozenset) and accepts:
        check_head(registry, name, needs, backbone, accepts)


def check_samplers(registry: Registry, planned: Mapping[str, Construction]) -> None:
    """SpecError where a sampler, one inside another part too, is not made for the process.

    The annotation of its constructor's `process` says for which ones it is; where it is no class, or the process is made by a
    function, nothing is known.
    """
    if "process" not in planned or not isinstance(planned["process"].factory, type):
        return
    for where, construction in planned.items():
        _check_samplers(registry, construction, where, planned["process"].factory)


def _check_samplers(registry: Registry, construction: Construction, where: str, process: type) -> None:
    factory = construction.factory
    if isinstance(factory, type) and issubclass(factory, Sampler):
        allowed = arms_of(hints_of(factory).get("process", ForwardProcess))
        known = all(isinstance(arm, type) and issubclass(arm, ForwardProcess) for arm in allowed)
        if known and not issubclass(process, allowed):
            processes = _importable(registry, "processes")
            fitting = [name for name, p in processes.items() if isinstance(p, type) and issubclass(p, allowed)]
            raise SpecError(
                f"{where}: {factory.__name__} works with {' or '.join(arm.__name__ for arm in allowed)}, and process is a "
                f"{process.__name__}. Processes that fit: {', '.join(fitting) or 'none'}."
            )
    for key, inner in construction.nested.items():
        _check_samplers(registry, inner, f"{where}.{key}", process)


def _importable(registry: Registry, kind: str) -> dict[str, Any]:
    """{name: its class or factory} of the parts of a kind that can be imported."""
    found = {}
    for target in registry.targets(kind):
        with contextlib.suppress(RegistryError):
            found[target.name] = registry.resolve(kind, target.name)
    return found


def _listed(names: frozenset) -> str:
    return ", ".join(sorted(names)) or "nothing"
