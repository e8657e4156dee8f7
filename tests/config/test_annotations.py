"""Annotations that are text, and name what is there for type checkers alone."""

import dataclasses
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from di4c.config.annotations import Unknown, hints_of
from di4c.config.construct import create, plan
from di4c.config.registry import Registry
from di4c.errors import RegistryError, SpecError

PLUGIN = '''
from __future__ import annotations

import dataclasses
import typing as t
from typing import TYPE_CHECKING

from di4c.contracts import Teacher

DI4C_PLUGINS = {"teachers": {"mine": "Mine"}}

if TYPE_CHECKING:
    import numpy as np
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nowhere import Foreign
    from di4c.contracts import ForwardProcess
if t.TYPE_CHECKING:
    import nowhere_too.inside as inside


@dataclasses.dataclass
class Options:
    """Options."""

    width: int
    foreign: Foreign | None = None
    rates: Sequence[float] = ()


class Mine(Teacher):
    """Mine."""

    def __init__(self, process: ForwardProcess, *, time: str = "t", steps: int = 1, foreign: Foreign | None = None, lr: float | Foreign = 0.0,
                 folder: Path | None = None, rates: Sequence[float] = (), table: Mapping[str, Foreign] = {}, options: Options | None = None,
                 array: np.ndarray | inside.Deep[int] | None = None, broken: not python = None):
        vars(self).update({key: value for key, value in locals().items() if key != "self"})
'''


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "mine_typed.py"
    file.write_text(PLUGIN.replace("not python", "'not python'"))
    return file


def test_trouble_b11_options_are_converted_all_the_same(plugin):
    registry = Registry.default([str(plugin)])
    entry = {
        "name": "mine", "time": "sigma", "steps": "1e3", "lr": "1e-4", "folder": "a/b", "rates": ["1e-1", 2], "table": {"a": 1},
        "options": {"width": 8.0, "rates": ["1"]}, "foreign": {"x": 1}, "array": [1], "broken": 3,
    }  # fmt: skip
    made = create(registry, "teachers", entry, {"process": "a process"})
    assert (made.time, made.steps, made.folder, made.rates, made.process) == (
        "sigma",
        1000,
        Path("a/b"),
        [0.1, 2.0],
        "a process",
    )
    assert (made.options.width, made.options.rates, made.table, made.foreign, made.array, made.broken) == (
        8,
        [1.0],
        {"a": 1},
        {"x": 1},
        [1],
        3,
    )
    assert made.lr == 1e-4, "the arm that is known"


@pytest.mark.parametrize(
    ("options", "told"), [({"steps": 2.7}, "steps: expected an integer"), ({"options": {"width": "x"}}, "options.width: expected an integer"),
                          ({"options": {}}, "misses 'width'"), ({"time": 3}, "time: expected a string"), ({"rates": 3}, "rates: expected a list")],
)  # fmt: skip
def test_trouble_b11_and_checked(plugin, options, told):
    with pytest.raises((SpecError, RegistryError), match=told):
        plan(Registry.default([str(plugin)]), "teachers", {"name": "mine"} | options, {"process"}, "teacher")


def test_hints_of_ordinary_signatures_are_as_ever():
    def function(a: int, b: "Sequence[float]" = (), c=None): ...

    @dataclasses.dataclass
    class Base:
        x: "int"

    @dataclasses.dataclass
    class Derived(Base):
        y: "Mapping[str, int] | None" = None

    assert hints_of(function) == {"a": int, "b": Sequence[float]}
    assert hints_of(Derived) == {"x": int, "y": Mapping[str, int] | None}


def test_one_name_that_is_not_there_loses_nothing_else(monkeypatch):
    module = type(sys)("made_up")
    monkeypatch.setitem(sys.modules, "made_up", module)
    exec(textwrap.dedent("""
        from __future__ import annotations
        import dataclasses, functools
        class A:
            def __init__(self, a: int, b: Absent, c: list[Absent], d: Absent.inner[str] | None = None, e: "int" = 0, *f: str, **g: bool): ...
        @dataclasses.dataclass
        class B:
            a: int
            b: Absent = None
        def wrapped(function):
            @functools.wraps(function)
            def inner(*args, **options): return function(*args, **options)
            return inner
        @wrapped
        def C(a: int, b: Absent): ...
    """), vars(module))  # fmt: skip
    assert hints_of(module.A)["a"] is int and hints_of(module.A)["e"] is int and hints_of(module.A)["b"] is Unknown
    assert hints_of(module.A)["c"] == list[Unknown] and hints_of(module.A)["d"] == Unknown | None
    assert hints_of(module.B) == {"a": int, "b": Unknown} == hints_of(module.C)
