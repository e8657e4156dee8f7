import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from di4c.config.coerce import coerce, describe, from_mapping
from di4c.errors import SpecError


@dataclass(frozen=True)
class Inner:
    rate: float
    names: list[str]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    size: int = 3


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("1e-4", float, 1e-4),
        (1, float, 1.0),
        ("1e3", int, 1000),
        (1000.0, int, 1000),
        (True, bool, True),
        ("x", str, "x"),
        ("runs/x", Path, Path("runs/x")),
        (None, Optional[int], None),  # noqa: UP045
        ("2", int | None, 2),
        ([1, "2"], list[float], [1.0, 2.0]),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 0.5], tuple[int, float], (1, 0.5)),
        ([1], Sequence[float], [1.0]),
        ([1, 1], frozenset[int], frozenset({1})),
        ({"a": "1e-2"}, dict[str, float], {"a": 0.01}),
        ("b", Literal["a", "b"], "b"),
        ("inf", int | str, "inf"),
        (4, int | str, 4),
        ({"inner": {"rate": "1e-3", "names": ["a"]}}, Outer, Outer(Inner(1e-3, ["a"]))),
        ("anything", Any, "anything"),
        ({"x": 1}, object, {"x": 1}),
    ],
)
def test_values_become_what_is_asked_for(value, annotation, expected):
    got = coerce(value, annotation, "key")
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "told"),
    [
        ("fast", float, "expected a number, found 'fast'"),
        (True, float, "found True"),
        (True, int, "found True"),
        (1.5, int, "expected an integer, found 1.5"),
        (math.inf, int, "expected an integer"),
        (1, bool, "expected true or false, found 1"),
        ("yes", bool, "expected true or false"),
        (1, str, "expected a string, found 1"),
        ("abc", list[str], "expected a list of strings, found 'abc'"),
        ([1], tuple[int, int], "expected 2 values, found 1"),
        ([1, "x"], list[int], r"key\[1\]: expected an integer"),
        ("cosin", Literal["cosine", "linear"], "Did you mean 'cosine'"),
        ("x", int | None, "expected an integer, found 'x'"),
        ([], int | str, "expected an integer or a string"),
        (3, Outer, "expected a mapping, found 3"),
        ({"inner": {"rate": 1, "name": []}}, Outer, "key.inner.name: unknown key. Did you mean 'names'"),
        ({"inner": {"rate": 1}}, Outer, "key.inner.names: missing, expected a list of strings"),
        (None, int, "found None"),
        (3, dict[str, int], "expected a mapping"),
    ],
)
def test_a_wrong_value_says_where_and_what_is_allowed(value, annotation, told):
    with pytest.raises(SpecError, match="key.*" + told.removeprefix("key").removeprefix(r"\[1\]")):
        coerce(value, annotation, "key")
    with pytest.raises(SpecError, match=told):
        coerce(value, annotation, "key")


@given(st.floats(allow_nan=False))
def test_floats_survive_their_text(value):
    assert coerce(repr(value), float, "x") == value
    assert coerce(value, float, "x") == value


@given(st.integers())
def test_integers_stay(value):
    assert coerce(value, int, "x") == value


def test_top_level_keys_have_no_prefix():
    with pytest.raises(SpecError, match=r"^siz: unknown key. Did you mean 'size'\?"):
        from_mapping(Outer, {"siz": 1}, "")


def test_types_are_described_in_words():
    assert describe(list[int] | None) == "a list of integers or null"
