"""Which parts fit one another, as far as their classes say; errors that name the spec."""

import inspect
from collections.abc import Mapping

from di4c.config.annotations import hints_of
from di4c.config.construct import Construction, arms_of
from di4c.config.kinds import MADE_OF_A_STUDENT
from di4c.config.registry import Registry
from di4c.config.trained import TrainedRun
from di4c.contracts import Backbone, ForwardProcess, Sampler
from di4c.errors import RegistryError, SpecError


def check_takes_student(registry: Registry, entry: Mapping, trained: TrainedRun) -> None:
    """SpecError unless the named teacher can be made of a student."""
    told = f"teacher.name: {trained.run} is a distilled student, and {entry['name']!r} is not made of one."
    if parameters_of(registry, entry["name"]) >= MADE_OF_A_STUDENT:
        return
    fitting = [t.name for t in registry.targets("teachers") if parameters_of(registry, t.name) >= MADE_OF_A_STUDENT]
    raise SpecError(f"{told} Teachers that are: {', '.join(fitting) or 'none'}.")


def parameters_of(registry: Registry, teacher: str) -> set[str]:
    """The names of a teacher's constructor's parameters; one that cannot be imported has none."""
    try:
        return set(inspect.signature(registry.resolve("teachers", teacher)).parameters)
    except (RegistryError, TypeError, ValueError):
        return set()


def check_head(registry: Registry, name: str, needs: frozenset, backbone: type, accepts: frozenset) -> None:
    if needs <= accepts:
        return
    fitting = [t.name for t in registry.targets("student_heads") if _needs(registry, t.name) <= accepts]
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
        allowed = tuple(arm for arm in arms_of(hints_of(factory).get("process", ForwardProcess)))
        if all(isinstance(arm, type) and issubclass(arm, ForwardProcess) for arm in allowed) and not issubclass(
            process, allowed
        ):
            fitting = [t.name for t in registry.targets("processes") if _is_one(registry, t.name, allowed)]
            raise SpecError(
                f"{where}: {factory.__name__} works with {' or '.join(arm.__name__ for arm in allowed)}, and process is a "
                f"{process.__name__}. Processes that fit: {', '.join(fitting) or 'none'}."
            )
    for key, inner in construction.nested.items():
        _check_samplers(registry, inner, f"{where}.{key}", process)


def _is_one(registry: Registry, name: str, allowed: tuple[type, ...]) -> bool:
    """Whether a process is of one of the classes; one that cannot be imported is of none."""
    try:
        found = registry.resolve("processes", name)
    except RegistryError:
        return False
    return isinstance(found, type) and issubclass(found, allowed)


def _needs(registry: Registry, name: str) -> frozenset:
    """What a head's class says it needs; a head that cannot be imported fits nothing."""
    try:
        return frozenset(registry.resolve("student_heads", name).needs)
    except (RegistryError, AttributeError, TypeError):
        return frozenset({"unknown"})


def _listed(names: frozenset) -> str:
    return ", ".join(sorted(names)) or "nothing"
