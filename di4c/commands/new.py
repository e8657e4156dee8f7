"""Writes a plugin to start from: its code, a spec that uses it, and a test that passes."""

import argparse
import importlib.util
import keyword
import re
import sys
from pathlib import Path
from string import Template

from di4c.command_line import path_argument
from di4c.config.kinds import KINDS
from di4c.config.registry import Registry
from di4c.errors import SpecError
from di4c.paths import is_plain_name

TEMPLATES = Path(__file__).with_name("templates")
SPECS = {"teacher": "teacher.yaml", "head": "student.yaml", "latent": "student.yaml", "metric": "student.yaml"}
"""The kinds of parts that have templates, by their keys, with that of the spec."""

USED = {
    "head": "{name: readout, rank: 16}",
    "latent": "{name: categorical, atoms: 8}",
    "metrics": "[frechet, pairwise]",
}
"""What a student's spec uses but for the new part."""


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    options = _parser(prog).parse_args(arguments)
    written = write(options.kind, options.name, options.folder)
    print("\n".join(f"wrote {path}" for path in written))
    _, spec, test = written
    print(f"test it:  python -m pytest {test}\ncheck it: di4c check {spec}\ntrain it: di4c train --spec {spec}")


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """The files written for a part of that name. Raises SpecError, and writes none, where the name or one of the files is taken."""
    names = _names(kind, name)
    module = names["module"]
    files = {
        f"{module}.py": f"{kind}.py.txt",
        f"{module}.yaml": SPECS[kind],
        f"test_{module}.py": f"test_{kind}.py.txt",
    }
    texts = {
        folder / file: Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(names)
        for file, template in files.items()
    }
    for path in texts:
        if path.exists() or path.is_symlink():
            raise SpecError(f"{path}: exists already; choose another name, or another --folder")
    _refuse_taken(kind, name, module)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return list(texts)


def _names(kind: str, name: str) -> dict[str, str]:
    """The names that templates use: of the part, of its module, the stem of its classes', and what a spec names beside it."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*", name) or not is_plain_name(name):
        raise SpecError(
            f"{name!r}: a name is made of letters, numbers, - and _, begins with a letter, and has at most 100 characters"
        )
    words = [word[:1].upper() + word[1:] for word in re.split("[-_]", name)]
    if len(words) > 1 and words[-1].lower() == kind:
        words.pop()  # not MyTeacherTeacher
    named = USED | ({"metrics": f'[frechet, "{name}"]'} if kind == "metric" else {kind: f'"{name}"'})
    return {"name": name, "module": name.replace("-", "_"), "stem": "".join(words), **named}


def _refuse_taken(kind: str, name: str, module: str) -> None:
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise SpecError(
            f"{name!r}: {module} is a word or a module of Python's or an installed one; choose another name"
        )
    kinds = {entry.key: entry.name for entry in KINDS.values()}
    taken = {target.name: target for target in Registry.default().targets(kinds[kind])}
    if name in taken:
        raise SpecError(f"{name!r}: a {kind} of that name exists already ({taken[name].told}); choose another name")


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("kind", choices=SPECS, help="the kind of part")
    parser.add_argument("name", help="its name in specs, e.g. my-teacher")
    parser.add_argument(
        "--folder",
        type=path_argument,
        default=Path(),
        metavar="DIR",
        help="where to write (default: the current folder)",
    )
    return parser
