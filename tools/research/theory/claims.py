"""What a claim consists of: lines that hold or fail, and the data of its plots."""

import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from types import ModuleType
from typing import Any

MODULES = ("product_error", "bound", "mixture_fit", "student", "matching", "estimators", "samplers")
"""The claims in the order of the page; their names on the command line."""


@dataclass(frozen=True)
class Line:
    """One statement: a name, what was measured, what it is held against, whether it holds."""

    name: str
    measured: float
    bound: str
    ok: bool
    note: str = ""

    def __str__(self) -> str:
        note = f"  ({self.note})" if self.note else ""
        return f"{self.name:<66} {self.measured:>11.4g}  {self.bound:<28} {'ok' if self.ok else 'FAIL'}{note}"


def within(name: str, measured: float, low: float, high: float, note: str = "") -> Line:
    """The line low ≤ measured ≤ high; NaN fails."""
    return Line(name, float(measured), f"in [{low:.4g}, {high:.4g}]", bool(low <= measured <= high), note)


def at_most(name: str, measured: float, bound: float, note: str = "") -> Line:
    """The line measured ≤ bound; NaN fails."""
    return Line(name, float(measured), f"at most {bound:.4g}", bool(measured <= bound), note)


def at_least(name: str, measured: float, bound: float, note: str = "") -> Line:
    """The line measured ≥ bound; NaN fails."""
    return Line(name, float(measured), f"at least {bound:.4g}", bool(measured >= bound), note)


@dataclass(frozen=True)
class Claim:
    """A claim as measured. says: the statement in a sentence or two. data: plain values, all that the plots need."""

    key: str
    title: str
    says: str
    lines: list[Line]
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return bool(self.lines) and all(line.ok for line in self.lines)


def measured(keys: Sequence[str], small: bool) -> Iterator[Claim]:
    """The claims in order; several are measured side by side, each in a process of one thread."""
    if len(keys) == 1:
        yield module_of(keys[0]).measure(small)
        return
    with ProcessPoolExecutor(len(keys), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_alone, keys, [small] * len(keys))


def _alone(key: str, small: bool) -> Claim:
    import torch

    torch.set_num_threads(1)
    return module_of(key).measure(small)


def module_of(key: str) -> ModuleType:
    """The module that measures and draws a claim."""
    return importlib.import_module(f"theory.{key}")
