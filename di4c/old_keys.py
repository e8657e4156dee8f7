"""The spec's keys of earlier versions: read as what they are called now, with one warning that names the new ones."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from di4c.errors import SpecError

RENAMED = {
    ("", "procedure"): "pipeline",
    ("objective", "near_time"): "distillation_time",
    ("objective", "near_copies"): "distillation_copies",
    ("time", "law"): "name",
    ("distillation_time", "law"): "name",
    ("teacher_step", "law"): "distribution",
    ("consistency", "above"): "min_time",
    ("distillation", "below"): "max_time",
    ("distillation", "below_inclusive"): "max_time_inclusive",
}
"""{(the key above it, by its name of today, "" for none; the old key): the new key}."""

UNUSED = {("objective", "fused"): "the kernels are used wherever CUDA and Triton are"}
"""Keys without use any more, and why."""

KINDS = {"procedures": "pipelines", "time_laws": "time_samplers"}
"""Kinds of parts, as plugins declare them."""

REMOVED = {
    ("", "rounds"): "no section any more; use pipeline: {name: rounds, max: …, stop: …, later: …}, with what was "
    "rounds.teacher as pipeline.later.teacher."
}
"""Keys whose contents have moved: what is said of them."""


def renamed(values: Any, source: str | None = None) -> Any:
    """Plain values of a spec under the keys of today. With a `source`, its old keys are warned of, all in one FutureWarning.

    Raises SpecError for a key that has gone, and where an old key stands beside its new one.
    """
    told: list[str] = []
    result = _renamed(values, "", "", told)
    _warn(source, told)
    return result


def renamed_path(path: Sequence[str | int], source: str) -> list[str | int]:
    """The path of a key with the keys of today; `source` and a warning as in `renamed`."""
    result: list[str | int] = []
    for step in path:
        above = next((key for key in reversed(result) if isinstance(key, str)), "")
        result.append(step if isinstance(step, int) else RENAMED.get((above, step), step))
    if result != list(path):
        _warn(source, [f"{'.'.join(map(str, path))} is now {'.'.join(map(str, result))}"])
    return result


def renamed_kind(kind: str, source: str) -> str:
    """The kind of parts that a plugin says, by its name of today; `source` and a warning as in `renamed`."""
    if kind in KINDS:
        _warn(source, [f"{kind} is now {KINDS[kind]}"])
    return KINDS.get(kind, kind)


def reference_values(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored evaluation says of real data, whatever version wrote it; {} where it says nothing."""
    return evaluation.get("reference_values") or evaluation.get("floors") or {}


def _warn(source: str | None, told: list[str]) -> None:
    if told and source is not None:
        warnings.warn(f"{source}: old keys, still read: {', '.join(told)}", FutureWarning, stacklevel=3)


def _renamed(values: Any, above: str, where: str, told: list[str]) -> Any:
    if isinstance(values, list):
        return [_renamed(item, above, where, told) for item in values]
    if not isinstance(values, Mapping):
        return values
    result = {}
    for old, value in values.items():
        if (above, old) in REMOVED:
            raise SpecError(f"{where}{old}: {REMOVED[above, old]}")
        if (above, old) in UNUSED:
            told.append(f"{where}{old} has no use any more ({UNUSED[above, old]})")
            continue
        key = RENAMED.get((above, old), old)
        if key != old:
            told.append(f"{where}{old} is now {where}{key}")
            if key in values:
                raise SpecError(f"{where}{old}: an old name of {where}{key}, which is given too; leave it out")
        result[key] = _renamed(value, str(key), f"{where}{key}.", told)
    return result
