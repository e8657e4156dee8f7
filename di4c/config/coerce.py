"""Plain values of a spec → the types that a signature or a dataclass asks for."""

import collections.abc
import dataclasses
import math
import types
import typing
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, Union

from di4c.config.annotations import hints_of
from di4c.config.suggest import suggestion
from di4c.errors import SpecError
from di4c.paths import user_path

LONGEST_NUMBER = 4000
"""Decimal places of a whole number; Python refuses to write longer ones."""

_SEQUENCES = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
}
_WORDS = {
    int: ("an integer", "integers"), float: ("a number", "numbers"), bool: ("true or false", "booleans"),
    str: ("a string", "strings"), Path: ("a path", "paths"),
}  # fmt: skip
_MAPPINGS = {dict, collections.abc.Mapping, collections.abc.MutableMapping}


def coerce(value: Any, annotation: Any, where: str) -> Any:
    """`value` as `annotation` asks: int, float, bool, str, Path, Literal, Optional, list, tuple, dict or a dataclass.

    "1e-4" becomes a float where a float is asked for, 1e3 an int where an int is. Values whose annotation is none of
    these pass unchanged, since only their constructor can judge them.

    Raises SpecError, with `where` (the key path), what was found and what is allowed.
    """
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return coerce(value, typing.get_args(annotation)[0], where)
    if origin in (Union, types.UnionType):
        return _union(value, annotation, where)
    if origin is Literal:
        return _literal(value, typing.get_args(annotation), where)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return value if isinstance(value, annotation) else from_mapping(annotation, value, where)
    if (origin or annotation) in _SEQUENCES:
        return _sequence(value, annotation, where)
    if (origin or annotation) in _MAPPINGS:
        return _mapping(value, annotation, where)
    return _scalar(value, annotation, where)


def from_mapping(cls: type, value: Any, where: str) -> Any:
    """The dataclass `cls` from a mapping; unknown and missing keys are SpecErrors that list the allowed ones."""
    if not isinstance(value, collections.abc.Mapping):
        raise SpecError(f"{where or 'spec'}: expected a mapping, found {value!r}.{_allowed(cls)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init and f.metadata.get("spec", True)}
    for key in value:
        if key not in fields:
            raise SpecError(f"{_join(where, key)}: unknown key.{suggestion(key, fields, 'Allowed')}")
    hints = hints_of(cls)
    hints = {name: hints.get(name, Any) for name in fields}
    for name, field in fields.items():
        if name not in value and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            expected = "" if hints[name] is Any else f", expected {describe(hints[name])}"
            raise SpecError(f"{_join(where, name)}: missing{expected}.{_allowed(cls)}")
    return cls(**{key: coerce(item, hints[key], _join(where, key)) for key, item in value.items()})


def describe(annotation: Any) -> str:
    """An annotation in words, for messages: "an integer", "a list of numbers", "one of 'a', 'b'"."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if (origin or annotation) in _SEQUENCES:
        items = [a for a in args if a not in (Ellipsis, Any)]
        return "a list" + (f" of {' and '.join(dict.fromkeys(map(_plural, items)))}" if items else "")
    if (origin or annotation) in _MAPPINGS or dataclasses.is_dataclass(annotation):
        return "a mapping"
    named = getattr(annotation, "__name__", str(annotation))
    return "null" if annotation is type(None) else _WORDS.get(annotation, (named,))[0]


def _plural(annotation: Any) -> str:
    return _WORDS[annotation][1] if annotation in _WORDS else f"({describe(annotation)})"


def _union(value: Any, annotation: Any, where: str) -> Any:
    """The first arm that takes the value; an arm of exactly the value's type comes first."""
    arms = typing.get_args(annotation)
    if value is None and type(None) in arms:
        return None
    exact = [a for a in arms if a is type(value)]
    errors = []
    for arm in exact + [a for a in arms if a not in exact and a is not type(None)]:
        try:
            return coerce(value, arm, where)
        except SpecError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise SpecError(f"{where}: expected {describe(annotation)}, found {value!r}.")


def _literal(value: Any, allowed: tuple, where: str) -> Any:
    for option in allowed:
        if value == option and type(value) is type(option):
            return option
    raise SpecError(f"{where}: found {value!r}.{suggestion(value, map(str, allowed), 'Allowed')}")


def _sequence(value: Any, annotation: Any, where: str) -> Any:
    if isinstance(value, str | bytes | collections.abc.Mapping) or not isinstance(value, collections.abc.Iterable):
        raise SpecError(f"{where}: expected {describe(annotation)}, found {value!r}.")
    origin, args, items = typing.get_origin(annotation) or annotation, typing.get_args(annotation), list(value)
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(items) != len(args):
            raise SpecError(f"{where}: expected {len(args)} values, found {len(items)}: {items!r}.")
        kinds = args
    else:
        kinds = (args[0] if args else Any,) * len(items)
    return _SEQUENCES[origin](coerce(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(items, kinds, strict=True)))


def _mapping(value: Any, annotation: Any, where: str) -> dict:
    if not isinstance(value, collections.abc.Mapping):
        raise SpecError(f"{where}: expected {describe(annotation)}, found {value!r}.")
    key_type, value_type = typing.get_args(annotation) or (Any, Any)
    return {coerce(k, key_type, where): coerce(v, value_type, _join(where, k)) for k, v in value.items()}


def _scalar(value: Any, annotation: Any, where: str) -> Any:
    if annotation not in (bool, int, float, str, Path, type(None)):
        return value
    if annotation in (int, float):
        number = _whole(value) if annotation is int else _real(value)
        if number is not None:
            return number
    elif annotation is Path and isinstance(value, str | Path) and str(value):
        try:
            return user_path(value)
        except SpecError as error:
            raise SpecError(f"{where}: {error}.") from error
    elif annotation is not Path and isinstance(value, annotation):
        return value
    raise SpecError(f"{where}: expected {describe(annotation)}, found {value!r}.")


def _whole(value: Any) -> int | None:
    """The whole number that a value or its text stands for exactly (1e3 and "1e3" are 1000), or None: nothing is cut off or rounded."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):  # above 2⁵³ a float is no longer what was written
        return int(value) if abs(value) <= 2**53 and value == int(value) else None
    if isinstance(value, int):
        return value
    try:
        number = Decimal(value.strip())
        exact = number.is_finite() and number.adjusted() < LONGEST_NUMBER and number == number.to_integral_value()
        return int(number) if exact else None
    except (InvalidOperation, ValueError):
        return None


def _real(value: Any) -> float | None:
    """The number that a value or its text stands for ("1e-4" is text to YAML 1.1), or None; inf is one, nan is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    overflowed = math.isinf(number) and isinstance(value, str) and "inf" not in value.lower()
    return None if math.isnan(number) or overflowed else number


def _allowed(cls: type) -> str:
    names = [f.name for f in dataclasses.fields(cls) if f.init and f.metadata.get("spec", True)]
    return f" Allowed keys: {', '.join(names)}."


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)
