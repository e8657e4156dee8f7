from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from di4c.config.construct import create, plan, split_entry
from di4c.config.registry import Registry, Target
from di4c.errors import RegistryError, SpecError


class Process:
    def __init__(self, *, data_states: int, rate: float = 1.0):
        self.data_states, self.rate = data_states, rate


class Backbone:
    def __init__(self, width: int, *, num_positions: int):
        self.width, self.num_positions = width, num_positions


class Teacher:
    def __init__(self, process: Process, *, backbone: Backbone, kind: Literal["a", "b"] = "a"):
        self.process, self.backbone, self.kind = process, backbone, kind


class Sampler:
    def __init__(self, *, process: Process):
        self.process = process


class Completing:
    """Fills in what its entry points to."""

    def __init__(self, *, width: int, run: str):
        self.width, self.run = width, run

    @staticmethod
    def resolved_entry(entry: dict) -> dict:
        return {"width": 4} | entry


@dataclass(frozen=True)
class Gate:
    scale: float

    def __post_init__(self):
        if self.scale < 0:
            raise SpecError("scale must not be negative")


@dataclass(frozen=True)
class Term:
    weight: float
    sampler: Sampler
    gate: Gate | None = None
    sizes: list[int] = field(default_factory=list)


class Objective:
    def __init__(self, teacher: Teacher, *, data: Term | None = None, law: str = "uniform", latent: str | None = None):
        self.teacher, self.data, self.law, self.latent = teacher, data, law, latent


class Anything:
    def __init__(self, **options):
        self.options = options


class Unhelpful:
    def __init__(self, *, x: NotImported = 1):  # noqa: F821
        self.x = x


class Refusing:
    def __init__(self, *, width: int):
        raise SpecError(f"width must be even, found {width}")


def registry() -> Registry:
    here = [
        ("processes", Process),
        ("backbones", Backbone),
        ("teachers", Teacher),
        ("samplers", Sampler),
        ("objectives", Objective),
        ("metrics", Anything),
        ("metrics", Unhelpful),
        ("metrics", Refusing),
        ("teachers", Completing),
    ]
    return Registry([Target(kind, cls.__name__.lower(), f"{__name__}:{cls.__name__}", "test") for kind, cls in here])


@pytest.fixture(autouse=True)
def without_contracts(monkeypatch):
    """The classes above stand for parts without being any."""
    monkeypatch.setattr("di4c.config.construct._check_contract", lambda *_: None)
    monkeypatch.setattr("di4c.config.construct._needs_part", lambda *_: False)


def test_nested_parts_are_created_first_and_given_what_they_ask_for():
    process = Process(data_states=3)
    entry = {"name": "teacher", "backbone": {"name": "backbone", "width": "8"}, "kind": "b"}
    teacher = create(registry(), "teachers", entry, {"process": process, "num_positions": 5, "unused": None})
    assert teacher.process is process
    assert (teacher.backbone.width, teacher.backbone.num_positions, teacher.kind) == (8, 5, "b")


def test_parts_inside_dataclasses_are_created():
    data = {"weight": "1e-2", "sampler": "sampler", "gate": {"scale": 2}, "sizes": ["3"]}
    entry = {"name": "objective", "data": data}
    process = Process(data_states=3)
    objective = create(registry(), "objectives", entry, {"teacher": "T", "process": process})
    assert objective.data == Term(0.01, objective.data.sampler, Gate(2.0), [3])
    assert objective.data.sampler.process is process


def test_a_string_option_is_not_a_part():
    entry = {"name": "objective", "law": "grid", "latent": "text"}
    objective = create(registry(), "objectives", entry, {"teacher": "T"})
    assert (objective.law, objective.latent) == ("grid", "text")


def test_an_option_goes_before_a_provided_value():
    assert create(registry(), "processes", {"name": "process", "data_states": 9}, {"data_states": 2}).data_states == 9


def test_a_dataclass_takes_no_provided_values():
    with pytest.raises(RegistryError, match=r"objective\.data \(Term\) misses 'weight'"):
        entry = {"name": "objective", "data": {"sampler": "sampler"}}
        create(registry(), "objectives", entry, {"teacher": 1, "weight": 2, "process": 3}, "objective")


def teacher(**options) -> dict:
    return {"name": "teacher", "backbone": {"name": "backbone", "width": 1}} | options


def objective(**gate) -> dict:
    return {"name": "objective", "data": {"weight": 1, "sampler": "sampler", "gate": gate}}


@pytest.mark.parametrize(
    ("kind", "entry", "error", "told"),
    [
        ("processes", {"name": "process", "rat": 1}, RegistryError, "no option 'rat'. Did you mean 'rate'.*Allowed"),
        ("processes", {"name": "process", "rate": "quick"}, SpecError, "at.rate: expected a number, found 'quick'"),
        ("processes", {"rate": 1}, SpecError, "at.name: expected a string, found None"),
        ("processes", 3, SpecError, "at: expected a name or a mapping with 'name', found 3"),
        ("teachers", "teacher", RegistryError, r":Teacher\) misses 'backbone'.*backbone \(required\), kind"),
        ("teachers", teacher(backbone={"name": "bakcbone"}), RegistryError, "at.backbone: no backbone named"),
        ("teachers", teacher(backbone={"name": "backbone", "widht": 1}), RegistryError, "Did you mean 'width'"),
        ("teachers", teacher(kind="c"), SpecError, "at.kind: found 'c'"),
        ("objectives", objective(scale=-1), SpecError, "at.data.gate: scale must not be negative"),
        ("objectives", objective(scal=1), RegistryError, r"at.data.gate \(Gate\) has no option 'scal'"),
        ("metrics", {"name": "refusing", "width": 3}, SpecError, "at: width must be even, found 3"),
    ],
)
def test_mistakes_name_the_key_the_class_and_what_is_allowed(kind, entry, error, told):
    provided = {"data_states": 2, "process": Process(data_states=2), "num_positions": 1, "teacher": "T"}
    with pytest.raises(error, match=told):
        create(registry(), kind, entry, provided, "at")


def test_a_plan_hears_all_mistakes_but_those_of_constructors():
    entry = {"name": "teacher", "backbone": {"name": "backbone", "width": "x"}}
    with pytest.raises(SpecError, match="expected an integer"):
        plan(registry(), "teachers", entry, {"process", "num_positions"})
    plan(registry(), "metrics", {"name": "refusing", "width": 3})


def test_open_signatures_take_any_option():
    assert create(registry(), "metrics", {"name": "anything", "x": 1}).options == {"x": 1}


def test_annotations_for_type_checkers_only_do_no_harm():
    assert create(registry(), "metrics", {"name": "unhelpful", "x": "as it is"}).x == "as it is"


def test_a_class_may_complete_its_entry():
    assert create(registry(), "teachers", {"name": "completing", "run": "r"}).width == 4


def test_entries():
    assert split_entry("a", "") == ("a", {})
    assert split_entry({"name": "a", "b": 1}, "") == ("a", {"b": 1})
