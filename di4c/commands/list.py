"""Prints the names of all parts, where they come from and what they are; or those of the shipped specs."""

import argparse

from di4c.config.describe import first_docstring_line
from di4c.config.kinds import KINDS
from di4c.config.registry import Registry
from di4c.config.shipped import about, shipped_specs

SPECS = "specs"


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    options = _parser(prog).parse_args(arguments)
    if options.kind == SPECS:
        _list_specs()
    else:
        _list_parts(options)


def _list_parts(options: argparse.Namespace) -> None:
    registry = Registry.default(options.plugin)
    kinds = KINDS if options.kind is None else [_kind(options.kind)]
    for kind in kinds:
        targets = registry.targets(kind)
        print(f"{kind} (in a spec: {', '.join(KINDS[kind].places)})" if targets else f"{kind}: none")
        name_width = max((len(target.name) for target in targets), default=0)
        source_width = max((len(target.source) for target in targets), default=0)
        for target in targets:
            print(f"  {target.name:<{name_width}}  {target.source:<{source_width}}  {first_docstring_line(target)}")


def _kind(word: str) -> str:
    """The kind that is called so, or one of which is: teachers, teacher, lambda_samplers, latent, latents."""
    called = {kind.key: name for name, kind in KINDS.items()}
    return word if word in KINDS else called.get(word, called.get(word.removesuffix("s"), word))


def _list_specs() -> None:
    found = shipped_specs()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        print(f"{name:<{width}}  {about(path)}")


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument(
        "kind", nargs="?", help=f"one of {', '.join(KINDS)}; or {SPECS}, those that --spec takes by name"
    )
    parser.add_argument("--plugin", action="append", default=[], help="a module or .py file to include")
    return parser
