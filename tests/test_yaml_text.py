"""One reader and one writer of YAML."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from di4c.errors import SpecError
from di4c.yaml_text import MISSING, dump, escaped, parsed, plain, read_yaml, resolved, scalar
from tests.trouble.damage import damage, damages, outcome

AWKWARD = (
    "1e3", "0x1", "010", "1:30", "2024-01-01", "yes", "Off", "null", "~", "", " ", "=", "<<", "- a", "# x", "a #b", "a: b", "{a", "[", "'",
    '"', "*a", "&a", "!a", "%a", "@a", "`a", "|", ">", "? a", "${a}", "\\${a}", "\\\\${a}", "$", "${", "a\nb", "a\r\n", "\tx", "\x85",
    "\u2028", "\ufeffx", "\x00", "\udcff", "𝛼", "---", "...", "a\\",
)  # fmt: skip
texts = (
    st.text(max_size=10)
    | st.text(st.characters(), max_size=6)
    | st.text("\\${}a.?:# ", max_size=12)
    | st.sampled_from(AWKWARD)
)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
specs = st.dictionaries(texts, values, max_size=3).filter(lambda spec: MISSING not in str(spec))


@settings(max_examples=150, deadline=None)
@given(specs)
def test_trouble_16_whatever_is_written_reads_back_equal(spec):
    text = dump(spec)
    assert resolved(parsed(text)) == spec and resolved(escaped(spec)) == spec
    assert text.encode().decode() == text, "a file in UTF-8 holds it"
    assert json.loads(json.dumps(spec)) == spec, "an export does too"


@pytest.mark.parametrize("text", AWKWARD)
def test_trouble_16_a_reader_of_yaml_1_1_sees_text_where_text_was_written(text):
    if "${" not in text:
        assert yaml.safe_load(dump({"a": text})) == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0), ("-.5e-3", -0.0005), ("1_000", 1000), ("0x10", 16), ("true", True), ("off", False), ("~", None), ("", None),
        (" 7 ", 7), (".inf", float("inf")), ("010", "010"), ("1:30", "1:30"), ("2024-01-31", "2024-01-31"), ("/a #1", "/a #1"),
        (" a ", " a "), ("=", "="), ("<<", "<<"), ("*a", "*a"),
    ],
)  # fmt: skip
def test_a_scalar_is_null_boolean_number_or_the_text_itself(text, value):
    assert scalar(text) == value and type(scalar(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2", "line 2, column 1: the key 'a' stands twice"),
        ("a: {b: 1, b: 1}", "'b' stands twice"),
        ("1: a\n'1': b", "'1' stands twice"),
        ("yes: 1", "the key True is not text"),
        ("? [1]\n: 2", "unhashable key"),
        ("a: &x [*x]", "nested more than 30"),
        ("a: &x {b: *x}", "nested more than 30"),
        ("[" * 5000, "nested more than 30"),
        ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join([f'*{p}'] * 10)}]\n" for p, c in zip("abcde", "bcdef", strict=True)),
         "more than 100000 values"),
        ("a: !!set {x}", "a: a set has no place"),
        ("a: !!binary eA==", "a: a bytes has no place"),
        ("a: !!timestamp 2020-01-01", "a: a date has no place"),
        ("a: !!int x", "cannot be understood"),
        ("a: !!bool x", "cannot be understood"),
        ("a: !!python/object/apply:os.system [x]", "line 1, column 4: could not determine a constructor"),
        ("a: " + "9" * 5000, "cannot be understood"),
        ("a: 1e999", "beyond the largest number"),
        ("\ta: 1", "line 1, column 1: found character"),
        ("a: 1\n\tb: 2", "line 2"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a\n---\nb", "another document"),
        ("a: \x00", "special characters"),
        ("a: *b", "undefined alias"),
    ],
)  # fmt: skip
def test_what_is_no_yaml_of_a_spec(text, told):
    with pytest.raises(SpecError, match=told) as raised:
        parsed(text)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_merge_keys_anchors_and_line_ends():
    assert parsed("x: &a {b: 1, c: 2}\r\ny: {<<: *a, c: 3}\r\n") == {"x": {"b": 1, "c": 2}, "y": {"b": 1, "c": 3}}
    shared = parsed("x: &a {b: 1}\ny: *a")
    assert shared["x"] is not shared["y"], "a change of one place is not one of the other"


def test_whole_numbers_as_keys_are_text_and_tuples_lists():
    assert plain({1: (1, 2)}) == {"1": [1, 2]} == resolved(parsed(dump({"1": [1, 2]})))


@pytest.mark.parametrize(
    "text", ["${a}", "${b", "${nope.here}", "${oc.env:DI4C_ABSENT}", "${nope:1}", "???", "${a:b:c}", "${..}", "$${a}"]
)
def test_an_interpolation_that_cannot_be(text):
    with pytest.raises(SpecError, match="^a: ") as raised:
        resolved({"a": text})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", damages())
def test_a_damaged_file_is_read_or_told(name, tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("task: pretrain\nseed: 0\ndata: {name: digits, note: 'ä €'}\n", encoding="utf-8")
    damage(file, name)
    outcome(lambda: resolved(read_yaml(file)), told=file.name)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1}
