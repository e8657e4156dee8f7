"""Mutations of the shipped specs: `python -m di4c check` says ok or one line, never a traceback."""

import contextlib
import copy
import io
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from di4c.__main__ import main
from di4c.command_line import USER_ERROR

SHIPPED = {
    path.name: yaml.safe_load(path.read_text())
    for path in sorted((Path(__file__).parents[2] / "tools/specs").glob("*.yaml"))
}

NAMES = (
    "digits", "absorbing", "uniform", "denoiser", "dit", "token", "readout", "ancestral", "monte-carlo", "grid", "averaged", "rounds", "seeds",
    "entropy", "mdlm", "module", "maskgit", "text", "subs", "vq", "os:system", "di4c_plugins.heads.token:TokenHead", "a.b:", ":", "x", "",
)  # fmt: skip
KEYS = (
    "name",
    "law",
    "run",
    "teacher",
    "backbone",
    "process",
    "time",
    "lora",
    "steps",
    "eval",
    "data",
    "1",
    "a.b",
    "λ",
    "\n",
    "<<",
    "__init__",
)
NUMBERS = (
    0,
    1,
    -1,
    2.7,
    1e3,
    1e308,
    -1e-300,
    10**30,
    10**400,
    -(10**18),
    2**63,
    math.inf,
    -math.inf,
    math.nan,
    True,
    False,
    None,
)
TEXTS = (
    "1e3",
    "2.7",
    "0x10",
    "1e999",
    "nan",
    "inf",
    "true",
    "~",
    "~nobody-here/x",
    "/",
    ".",
    "..",
    "\0",
    "\ud800",
    "é" * 300,
    "${seed}",
    "${",
    "???",
    "\\${a}",
    "${a.b}",
)
scalars = st.sampled_from([*NUMBERS, *TEXTS, *NAMES]) | st.text(max_size=6) | st.integers() | st.floats()
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
deep = st.integers(1, 60).map(
    lambda levels: __import__("functools").reduce(lambda inner, _: {"name": inner}, range(levels), "x")
)


def places(values: object, path: tuple = ()) -> list[tuple]:
    """The paths of all values but the whole."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


@st.composite
def mutated(draw) -> dict:
    """A shipped spec with one to three changes of keys, values, kinds of values, or places."""
    spec = copy.deepcopy(SHIPPED[draw(st.sampled_from(sorted(SHIPPED)))])
    for _ in range(draw(st.integers(1, 3))):
        found = places(spec)
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        holder = spec
        for key in way:
            holder = holder[key]
        kind = draw(
            st.sampled_from(
                [
                    "value",
                    "value",
                    "number",
                    "tree",
                    "drop",
                    "add",
                    "rename",
                    "wrap",
                    "unwrap",
                    "text",
                    "elsewhere",
                    "deep",
                ]
            )
        )
        old = holder[last]
        if kind == "drop":
            del holder[last]
        elif kind == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(KEYS) | st.text(max_size=4))] = draw(trees)
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(KEYS) | st.just(f"{last}s") | st.text(max_size=4))] = holder.pop(last)
        elif kind == "elsewhere":
            other = draw(st.sampled_from(found))
            value = spec
            for key in other:
                value = (
                    value[key]
                    if isinstance(value, dict | list)
                    and (key in value if isinstance(value, dict) else key < len(value))
                    else None
                )
            holder[last] = copy.deepcopy(value)
        else:
            holder[last] = {
                "wrap": [old], "text": str(old), "unwrap": next(iter(old.values()), None) if isinstance(old, dict) else old,
                "number": draw(st.sampled_from(NUMBERS)), "tree": draw(trees), "deep": draw(deep),
            }.get(kind, draw(scalars))  # fmt: skip
    return spec


def check_says_ok_or_one_line(spec: object, folder: Path) -> None:
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(spec, allow_unicode=False), encoding="utf-8")
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        code = main(["check", str(file)])
    assert code in (0, USER_ERROR)
    if code:
        lines = complained.getvalue().splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"error: {file}: "), lines


def fuzz(examples: int):
    @settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )
    @given(mutated())
    def run(spec):
        check_says_ok_or_one_line(spec, run.folder)

    return run


@pytest.mark.parametrize("examples", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_a_mutated_spec_is_checked_without_a_traceback(examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fuzz(examples)
    run.hypothesis.inner_test.folder = run.folder = tmp_path
    run()
