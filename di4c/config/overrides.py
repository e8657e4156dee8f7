"""KEY=VALUE changes of a spec, as --set gives them."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from di4c.config.kinds import NESTED, SECTIONS
from di4c.config.suggest import suggestion
from di4c.errors import SpecError
from di4c.old_keys import renamed_path
from di4c.yaml_text import parsed, plain, resolved, scalar

PARTS = {**SECTIONS, "metrics": "metrics", **NESTED}
"""The keys whose value may be the bare name of a part (of `metrics`: every item of the list), with the part's kind."""


def overridden(values: Mapping[str, Any], overrides: Iterable[str], sections: Collection[str]) -> dict[str, Any]:
    """Plain values with changes "a.b=VALUE" or "a.b[0]=VALUE", in turn; what is not there yet is added.

    VALUE is taken as it is written, unless it is null, a boolean or a number, or begins with a quote or a bracket: then it is
    YAML. ${a.b} in it is left for `resolved`. Below the bare name of a part, the name becomes {name: …} and keeps its options.
    Raises SpecError with the change that cannot be made.
    """
    changed = plain(values)
    for override in overrides:
        try:
            key, value = _split(override)
            path = renamed_path(_path(key), f"--set {override}")
            if path[0] not in sections:
                raise SpecError(f"unknown key.{suggestion(path[0], sections, 'Allowed')}")
            _put(changed, path, value)
        except SpecError as error:
            raise SpecError(f"--set {override}: {error}") from error
    return changed


def _split(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SpecError("expected KEY=VALUE, e.g. train.steps=100")
    if not text.lstrip().startswith(("{", "[", '"', "'")):
        return key.strip(), scalar(text)
    try:
        return key.strip(), parsed(text.lstrip())
    except SpecError as error:
        raise SpecError(f"the value is not YAML: {error} (a text that begins so is written in quotes)") from error


def _path(key: str) -> list[str | int]:
    """ "eval.metrics[0].name" → ["eval", "metrics", 0, "name"]; numbers after a dot are keys or, in a list, places."""
    if not re.fullmatch(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d{1,6}\])*", key):
        raise SpecError(f"{key!r} is no key; expected names with dots between them, and places in a list as [0]")
    return [int(place) if place else name for name, place in re.findall(r"([^.\[\]]+)|\[(\d+)\]", key)]


def _put(values: dict[str, Any], path: list[str | int], value: Any) -> None:
    """Sets the value at a path of plain values, making the mappings on the way."""
    holder: Any = values
    for depth, step in enumerate(path):
        told = _joined(path[:depth])
        place: Any = _place(holder, step, told)
        if depth == len(path) - 1:
            holder[place] = value
            return
        inner = holder[place] if isinstance(holder, list) else holder.get(place)
        # what it stands for is copied, so that the change is of this place alone
        if isinstance(inner, str) and "${" in inner:
            inner = _looked_up(values, path[: depth + 1])
        opened = _opened(inner, path[: depth + 1], _joined(path[: depth + 1]))
        holder[place] = opened
        holder = opened


def _opened(inner: Any, path: list[str | int], told: str) -> dict | list:
    """What stands at a path as something that holds keys."""
    if isinstance(inner, dict | list):
        return inner
    if inner is None:
        return {}
    key = next((step for step in reversed(path) if isinstance(step, str) and not step.isdecimal()), "")
    if isinstance(inner, str) and key in PARTS:
        return {"name": inner}
    raise SpecError(f"{told} is {inner!r}, which has no keys")


def _place(holder: dict | list, step: str | int, told: str) -> str | int:
    """The step as a key of a mapping, or as a place in a list."""
    if isinstance(holder, dict):
        return str(step)
    if not str(step).isdecimal() or int(step) >= len(holder):
        raise SpecError(f"{told} is a list of {len(holder)}; {step!r} is no place in it, 0 to {len(holder) - 1} are")
    return int(step)


def _looked_up(values: dict[str, Any], path: list[str | int]) -> Any:
    found: Any = resolved(values)
    for step in path:
        found = found[_place(found, step, "")]
    return found


def _joined(path: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
