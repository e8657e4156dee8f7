"""The YAML of specs: one reader and one writer, so that whatever values are written read back equal.

    read_yaml(file) ─► plain values as they stand ─ resolved ─► ${a.b} replaced          dump(values) ─► text

YAML 1.1 as PyYAML reads it, except that 1e3 is a number, as in YAML 1.2, and that 2024-01-31, 12:30 and 010 are text. Plain values
are None, bool, int, float, str, lists, and mappings with text as keys.
"""

import math
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from di4c.errors import SpecError
from di4c.paths import near

MOST_LEVELS = 30
MOST_VALUES = 100_000
LARGEST_BYTES = 16 * 2**20
"""No spec is deeper or larger; what is would exhaust the stack or the memory of whoever reads it."""

MISSING = "???"
"""Stands for a value that has still to be given."""

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_KEPT = {_TAG + name for name in ("null", "bool", "merge")}
_NUMBER_STARTS = list("-+0123456789.")


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] in _KEPT]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_yaml_float(self, node: yaml.Node) -> float:
        number = super().construct_yaml_float(node)
        if math.isinf(number) and "inf" not in node.value.lower():
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is beyond the largest number", node.start_mark
            )
        return number

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever this reader or one of YAML 1.1 would not take for text; writes shared values out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        # only there are line ends safe
        return self.represent_scalar(f"{_TAG}str", data, None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_yaml_float)
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, _NUMBER_STARTS)  # before int, which is tried after it
_Loader.add_implicit_resolver(f"{_TAG}int", _INT, _NUMBER_STARTS)
_Dumper.add_implicit_resolver(f"{_TAG}float", _FLOAT, _NUMBER_STARTS)


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file in UTF-8, as they stand. Raises SpecError with the file, the line, and what is wrong."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise SpecError(f"{path}: is a folder; expected a spec, a YAML file")
        if not stat.S_ISREG(status.st_mode):
            raise SpecError(f"{path}: is no regular file; expected a spec, a YAML file")
        if status.st_size > LARGEST_BYTES:
            raise SpecError(f"{path}: is too large for a spec ({status.st_size} bytes)")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SpecError(f"{path}: no such file{near(path)}") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: cannot be read as YAML: byte {error.start} is not UTF-8 text") from error
    try:
        return parsed(text)
    except SpecError as error:
        raise SpecError(f"{path}: cannot be read as YAML: {error}") from error


def parsed(text: str) -> Any:
    """The plain values of a YAML text, as they stand. Raises SpecError with the line and what is wrong."""
    try:
        values = yaml.load(text, _Loader)
    except RecursionError as error:
        raise SpecError(f"nested more than {MOST_LEVELS} levels deep") from error
    except Exception as error:  # of a tag such as !!int on what is none, anything comes out of the parser
        raise SpecError(_told(error)) from error
    return plain(values)


def scalar(text: str) -> Any:
    """What a text without quotes is as one YAML scalar: null, a boolean, a number, or the text itself."""
    loader = _Loader("")
    try:
        stripped = text.strip()
        tag = loader.resolve(yaml.ScalarNode, stripped, (True, False))
        if tag in (f"{_TAG}str", f"{_TAG}merge"):
            return text
        return loader.construct_object(yaml.ScalarNode(tag, stripped))
    except (ValueError, yaml.YAMLError) as error:
        raise SpecError(f"{text[:40]!r} is no number: {_told(error)}") from error
    finally:
        loader.dispose()


def dump(values: Any) -> str:
    """The YAML of plain values: `resolved(parsed(dump(values)))` equals them, whatever texts they hold."""
    return yaml.dump(escaped(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def escaped(values: Any) -> Any:
    """Plain values in which no text is an interpolation: \\${a} for ${a}, so that `resolved` gives the text."""
    if isinstance(values, Mapping):
        return {key: escaped(value) for key, value in values.items()}
    if isinstance(values, list):
        return [escaped(value) for value in values]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", values) if isinstance(values, str) else values


def resolved(values: Any) -> Any:
    """Plain values with ${a.b} replaced by what stands there, \\${ by ${. Raises SpecError with the key."""
    if not any("${" in text or text == MISSING for text in _texts(values)):
        return values
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return plain(OmegaConf.to_container(OmegaConf.create(values), resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        key, told = getattr(error, "full_key", None), str(error).splitlines()[0]
        remedy = r" (a text with ${ is written as \${)" if "GrammarParseError" in type(error).__name__ else ""
        raise SpecError(f"{key}: {told}{remedy}" if key else f"{told}{remedy}") from error
    except (RecursionError, ValueError, TypeError, AttributeError) as error:
        raise SpecError(f"an interpolation cannot be resolved: {type(error).__name__}: {error}") from error


def plain(values: Any) -> Any:
    """A copy of values as plain ones; tuples become lists, paths and whole numbers as keys text.

    Raises SpecError with the key where a value is of another type, holds itself, or there are too many or too deep.
    """
    return _Copy().of(values, "", 0)


class _Copy:
    """Copies values, and counts them: a few lines of YAML aliases can stand for more values than memory holds."""

    def __init__(self):
        self.count = 0

    def of(self, value: Any, where: str, level: int) -> Any:
        self.count += 1
        if level > MOST_LEVELS:
            raise SpecError(f"{where[:60]}…: nested more than {MOST_LEVELS} levels deep")
        if self.count > MOST_VALUES:
            raise SpecError(f"more than {MOST_VALUES} values")
        if value is None or isinstance(value, bool):
            return value
        for kind in (int, float, str):
            if isinstance(value, kind):
                return value if type(value) is kind else kind.__new__(kind, value)  # type: ignore[type-var]
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Mapping):
            return self._mapping(value, where, level)
        if isinstance(value, list | tuple):
            return [self.of(item, f"{where}[{i}]", level + 1) for i, item in enumerate(value)]
        raise SpecError(f"{where or 'the whole'}: a {type(value).__name__} has no place in a spec; write it as text")

    def _mapping(self, value: Mapping, where: str, level: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise SpecError(f"{f'{where}: ' if where else ''}the key {key!r} is not text; put it in quotes")
            text = str(key)
            if text in copied:
                raise SpecError(f"{f'{where}: ' if where else ''}the key {text!r} stands twice")
            copied[text] = self.of(item, f"{where}.{text}" if where else text, level + 1)
        return copied


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping | list):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _texts(value)


def _told(error: Exception) -> str:
    """One line of a YAML error: where, and what."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    told = " ".join(str(problem or getattr(error, "reason", None) or f"a value cannot be understood: {error}").split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {told}" if mark is not None else told
