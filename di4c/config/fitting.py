"""Which parts fit one another, as far as their classes say; errors that name the spec."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping

from di4c.config.construct import Construction
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.config.trained import TrainedRun
from di4c.contracts import Backbone, Sampler
from di4c.errors import Di4CError, RegistryError, SpecError

MADE_OF_A_STUDENT = {"student", "latent"}
"""The parameters by which a teacher's constructor says that it is made of a distilled student."""


@contextlib.contextmanager
def located(spec: Spec) -> Iterator[None]:
    """Errors name the file that the spec came from."""
    try:
        yield
    except Di4CError as error:
        raise type(error)(f"{spec.source}: {error}") from error


def check_takes_student(registry: Registry, entry: Mapping, trained: TrainedRun) -> None:
    """SpecError unless the named teacher can be made of a student."""
    told = f"teacher.name: {trained.run} is a distilled student, and {entry['name']!r} is not made of one."
    if MADE_OF_A_STUDENT <= parameters_of(registry, entry["name"]):
        return
    fitting = [t.name for t in registry.targets("teachers") if MADE_OF_A_STUDENT <= parameters_of(registry, t.name)]
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


def check_head_class(registry: Registry, spec: Spec, planned: Mapping[str, Construction]) -> None:
    """`check_head` before anything is built, where the classes already say what they need and accept."""
    if not {"teacher", "student.head"} <= set(planned) or "backbone" not in planned["teacher"].nested:
        return
    head, backbone = planned["student.head"].factory, planned["teacher"].nested["backbone"].factory
    needs, accepts = getattr(head, "needs", None), getattr(backbone, "accepts", None)
    if isinstance(needs, frozenset) and isinstance(accepts, frozenset) and accepts:
        check_head(registry, spec.student.head["name"], needs, backbone, accepts)


def _needs(registry: Registry, name: str) -> frozenset:
    """What a head's class says it needs; a head that cannot be imported fits nothing."""
    try:
        return frozenset(registry.resolve("student_heads", name).needs)
    except (RegistryError, AttributeError, TypeError):
        return frozenset({"unknown"})


def _listed(names: frozenset) -> str:
    return ", ".join(sorted(names)) or "nothing"
