"""The spec's keys of earlier versions: read as what they are called now, with one warning that names the new ones."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from di4c.errors import SpecError

RENAMED = {("", "procedure"): "pipeline"}
"""{(the key above it, "" for none; the old key): the new key}."""

REMOVED = {
    ("", "rounds"): "no section any more; use pipeline: {name: rounds, max: …, stop: …, later: …}, with what was "
    "rounds.teacher as pipeline.later.teacher."
}
"""Keys whose contents have moved: what is said of them."""


def renamed(values: Any, source: str | None = None) -> Any:
    """Plain values of a spec under the keys of today. With a `source`, its old keys are warned of, all in one FutureWarning.

    Raises SpecError for a key that has gone, and where an old key stands beside its new one.
    """
    found: dict[str, str] = {}
    result = _renamed(values, "", "", found)
    _warn(source, found)
    return result


def renamed_path(path: Sequence[str | int], source: str) -> list[str | int]:
    """The path of a key with the keys of today; `source` and a warning as in `renamed`."""
    result: list[str | int] = []
    for step in path:
        above = next((key for key in reversed(result) if isinstance(key, str)), "")
        result.append(step if isinstance(step, int) else RENAMED.get((above, step), step))
    if result != list(path):
        _warn(source, {".".join(map(str, path)): ".".join(map(str, result))})
    return result


def _warn(source: str | None, found: Mapping[str, str]) -> None:
    if found and source is not None:
        told = ", ".join(f"{old} is now {new}" for old, new in found.items())
        warnings.warn(f"{source}: old keys, still read: {told}", FutureWarning, stacklevel=3)


def _renamed(values: Any, above: str, where: str, found: dict[str, str]) -> Any:
    if isinstance(values, list):
        return [_renamed(item, above, where, found) for item in values]
    if not isinstance(values, Mapping):
        return values
    result = {}
    for old, value in values.items():
        if (above, old) in REMOVED:
            raise SpecError(f"{where}{old}: {REMOVED[above, old]}")
        key = RENAMED.get((above, old), old)
        if key != old:
            found[f"{where}{old}"] = f"{where}{key}"
            if key in values:
                raise SpecError(f"{where}{old}: an old name of {where}{key}, which is given too; leave it out")
        result[key] = _renamed(value, str(key), f"{where}{key}.", found)
    return result
