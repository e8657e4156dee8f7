"""The annotations of a constructor, those too that name what is imported for type checkers alone."""

import ast
import builtins
import dataclasses
import functools
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


class _Unknown(type):
    """What an annotation names and nobody can look up: stands in unions and in brackets, and no value is converted to it."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> type:
        return cls


class Unknown(metaclass=_Unknown):
    """Stands for a type that could not be looked up."""


def hints_of(factory: Callable) -> dict[str, Any]:
    """{parameter: its annotation} of a class or function; of a dataclass, its fields'.

    With `from __future__ import annotations`, annotations are text. Names in it are looked up in the module, then in its imports
    under TYPE_CHECKING (of modules that are loaded already, of the standard library, or of di4c); what is not found there
    is Unknown. An annotation that is no Python is left out.
    """
    owner = inspect.unwrap(factory)
    is_class = isinstance(owner, type)
    function = owner.__init__ if is_class and not dataclasses.is_dataclass(owner) else owner
    try:
        return typing.get_type_hints(function)
    except Exception:  # one name that is not there, and all annotations would be lost
        return dict(_one_by_one(inspect.unwrap(function)))


def _one_by_one(function: Callable) -> Iterator[tuple[str, Any]]:
    for holder in reversed(function.__mro__) if isinstance(function, type) else (function,):
        module = sys.modules.get(getattr(holder, "__module__", None) or "")
        names = _Names(getattr(holder, "__globals__", None) or vars(module or typing), module)
        for name, annotation in inspect.get_annotations(holder).items():
            try:
                yield name, _typed(annotation, names)
            except Exception:  # a text that is no annotation: nothing is known of the parameter's type
                continue


def _typed(annotation: Any, names: "_Names") -> Any:
    """The type that an annotation's text says, with texts inside it looked up too."""
    annotation = eval(annotation, {"__builtins__": {}}, names) if isinstance(annotation, str) else annotation

    def holder(value: Any) -> None: ...

    holder.__annotations__ = {"value": annotation}
    return typing.get_type_hints(holder, {}, names)["value"]


class _Names(dict):
    """A module's names, completed by those that it imports for type checkers."""

    def __init__(self, known: Mapping[str, Any], module: ModuleType | None):
        super().__init__(vars(builtins) | dict(known))
        self._module = module

    def __missing__(self, name: str) -> Any:
        return _imported_for_checkers(self._module).get(name, Unknown)


@functools.cache
def _imported_for_checkers(module: ModuleType | None) -> dict[str, Any]:
    """{name: what it stands for} of a module's imports inside an `if`, as far as they can be followed without running strange code."""
    try:
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    except (AttributeError, TypeError, OSError, ValueError, SyntaxError):
        return {}
    found: dict[str, Any] = {}
    for node in (inner for test in ast.walk(tree) if isinstance(test, ast.If) for inner in ast.walk(test)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or name] = _module(name)
        elif isinstance(node, ast.ImportFrom):
            source = _module("." * node.level + (node.module or ""), module)
            found |= {alias.asname or alias.name: getattr(source, alias.name, Unknown) for alias in node.names}
    return found


def _module(name: str, beside: ModuleType | None = None) -> Any:
    """A module that is loaded, or is of the standard library or of this project; else Unknown."""
    try:
        full = importlib.util.resolve_name(name, getattr(beside, "__package__", None))
        harmless = full.split(".")[0] in {"di4c", "di4c_plugins", *sys.stdlib_module_names}
        return importlib.import_module(full) if harmless or full in sys.modules else Unknown
    except (ImportError, ValueError):
        return Unknown
