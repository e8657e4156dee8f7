"""Writes docs/spec-reference.md from the dataclasses and constructors that read a spec: python tools/documents/write_spec_reference.py [--check]

What a key means is taken from tools/documents/spec_meanings.yaml and from the docstring of its class ("key: meaning", or the sentence that
names it). A test finds keys that nobody explains.
"""

import argparse
import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from di4c.config.annotations import hints_of
from di4c.config.coerce import describe
from di4c.config.construct import arms_of, contract_of
from di4c.config.eval_spec import EvalSpec
from di4c.config.kinds import KINDS, NESTED
from di4c.config.registry import Registry
from di4c.config.spec import Spec, StudentSpec
from di4c.engine.options import TrainOptions

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/spec-reference.md"

INTRODUCTION = """# Spec reference

*Written by `python tools/documents/write_spec_reference.py` from the code; do not edit.*

A spec is YAML. A part is named as `name` or as `{name: NAME, option: value}`. `${a.b}` takes
the value of another key, and `--set a.b=value` on a command line changes one. Paths start at the current directory, plugin files at
the spec's folder, `~` is the home folder. What shapes the result has no default. A key that is not known is refused with the nearest one.
"""

MEANINGS = yaml.safe_load((ROOT / "tools/documents/spec_meanings.yaml").read_text(encoding="utf-8"))
"""{"KIND NAME", a section, or "any": {key: meaning}}."""
CONTRACTS = {kind: contract_of(kind) for kind in KINDS}
PARTS = tuple(CONTRACTS.values())
SECTIONS = {"The whole": Spec, "train": TrainOptions, "student": StudentSpec, "eval": EvalSpec}


@dataclass(frozen=True)
class Row:
    """A key of a spec."""

    key: str
    type: str
    default: str
    meaning: str


def rows_of(place: str, factory: Any, hidden: frozenset | set = frozenset(), prefix: str = "") -> Iterator[Row]:
    """The keys of a dataclass or constructor, and after each those of the dataclass that it takes, by their paths.

    place: where MEANINGS explains them.
    """
    hints = hints_of(factory)
    given = inspect.signature(factory).parameters
    parameters = {name: parameter for name, parameter in given.items() if name not in hidden | {"source"}}
    marked, mentioned = meanings(all_text(factory), list(parameters))
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        annotation, key = hints.get(name, Any), prefix + name
        told = (MEANINGS.get(place, {}).get(key), marked.get(name), MEANINGS["any"].get(name), mentioned.get(name), "")
        meaning = next(text for text in told if text is not None)
        yield Row(key, type_of(name, annotation), default_of(factory, parameter), meaning)
        inner = [arm for arm in arms_of(annotation) if dataclasses.is_dataclass(arm) and not issubclass(arm, PARTS)]
        if len(inner) == 1 and factory is not Spec:  # the spec's sections have tables of their own
            yield from rows_of(place, inner[0], prefix=f"{key}.")


def all_text(factory: Any) -> str:
    """The docstring of a class and of the project's classes that it extends, for options that those explain."""
    extended = getattr(factory, "__mro__", (factory,))
    classes = [c for c in extended if c not in PARTS and c.__module__.startswith("di4c")]
    return "\n\n".join(text for c in classes if (text := inspect.cleandoc(vars(c).get("__doc__") or "")))


def meanings(doc: str, names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """What a docstring says of the names: after "name:" (or "a, b:"), and the first sentence that has `name` in it."""
    marked: dict[str, str] = {}
    mentioned: dict[str, str] = {}
    choice = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
    marker = re.compile(rf"(?<![\w.`])((?:{choice})(?:(?:, | and )(?:{choice}))*)(?: \([^)]*\))?: ")
    for paragraph in doc.split("\n\n"):
        text = " ".join(paragraph.split())
        marks = list(marker.finditer(text))
        for mark, following in zip(marks, [*marks[1:], None], strict=False):
            said = text[mark.end() : following.start() if following else len(text)]
            for name in re.split(r", | and ", mark[1]):
                marked.setdefault(name, sentence(re.sub(r" Raises \w+.*$", "", said)))
        for part in re.split(r"(?<=[.;])(?<!al\.)(?<!e\.g\.) (?=[`\w])", text[: marks[0].start()] if marks else text):
            for name in names:
                if re.search(rf"`{name}`|(?<![\w.]){name} (?:is|are|how|whether|> 0|= )", part):
                    mentioned.setdefault(name, sentence(part))
    return marked, mentioned


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    text = text.strip().rstrip(";,")
    start = text[:1].upper() if text[:1].isascii() else text[:1]
    return start + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else ""


def type_of(name: str, annotation: Any) -> str:
    """What a value must be, in words; a part links to its kind."""
    kinds = [kind for kind, contract in CONTRACTS.items() if contract in arms_of(annotation)]
    if kinds and NESTED.get(name) in kinds:
        key = KINDS[kinds[0]].key
        called = {"latent": "λ sampler", "time": "time sampler", "estimator": "loss estimator"}.get(key, key)
        return f"a [{called}](#{kinds[0]})"
    if any(dataclasses.is_dataclass(arm) for arm in arms_of(annotation)):
        return "a mapping" + (" or null" if type(None) in typing.get_args(annotation) else "")
    return {Any: "a part", list[Any]: "a list of parts"}.get(annotation, describe(annotation))


def default_of(factory: Any, parameter: inspect.Parameter) -> str:
    """The default as YAML has it, or that the key is required."""
    default = parameter.default
    if dataclasses.is_dataclass(factory):
        field = next(f for f in dataclasses.fields(factory) if f.name == parameter.name)
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
    if default is inspect.Parameter.empty:
        return "*required*"
    return f"`{yaml_of(default)}`"


def yaml_of(value: Any) -> str:
    """A default value in one line of YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(yaml_of, value)) + "]"
    return value if isinstance(value, str) and value else f"{value:g}" if isinstance(value, float) else repr(value)


def table(rows: list[Row]) -> str:
    """The rows in Markdown; nothing where there are none."""
    if not rows:
        return "No options.\n"
    lines = [("key", "type", "default", "meaning"), ("---",) * 4]
    lines += [(f"`{r.key}`", r.type, r.default, r.meaning) for r in rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def reference() -> str:
    sections = (f"## {heading}\n\n{table(list(rows_of(heading, cls)))}" for heading, cls in SECTIONS.items())
    parts = [INTRODUCTION, *sections]
    registry = Registry.default()
    for kind in KINDS:
        where, contract = "`, `".join(KINDS[kind].places), KINDS[kind].contract
        parts.append(f"## {kind}\n\nIn a spec: `{where}`. Contract: `di4c.contracts.{contract}`.\n")
        names = [target.name for target in registry.targets(kind)]
        parts += [part_text(kind, name, registry.resolve(kind, name)) for name in names]
    return "\n".join(parts)


def part_text(kind: str, name: str, factory: Any) -> str:
    """A heading, the first paragraph of the docstring, the options."""
    about = " ".join(inspect.cleandoc(factory.__doc__ or "").split("\n\n")[0].split())
    return f"### `{name}`\n\n{about.replace('|', chr(92) + '|')}\n\n{table(options_of(kind, name, factory))}"


def options_of(kind: str, name: str, factory: Any) -> list[Row]:
    """The options of a part: what the framework itself gives is left out."""
    return list(rows_of(f"{kind} {name}", factory, hidden=KINDS[kind].provided - NOT_GIVEN.get(kind, set())))


NOT_GIVEN = {"metrics": {"judge"}}
"""Options that a spec may say though the framework gives a value."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is not current")
    text = reference()
    if parser.parse_args().check:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        if not current:
            told = "is not what the code says; run tools/documents/write_spec_reference.py"
            print(f"{PAGE.relative_to(ROOT)} {told}", end="")
        return int(not current)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
