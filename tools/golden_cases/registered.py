"""Every kind of case the verifier knows."""

import importlib

from golden_cases.checks import Kind

MODULES = ("language", "pixels", "vq", "losses")


def all_kinds() -> list[Kind]:
    """The kinds of all systems; a system whose file is not there has none."""
    kinds = []
    for name in MODULES:
        try:
            module = importlib.import_module(f"golden_cases.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"golden_cases.{name}":
                raise
            continue
        kinds += module.KINDS
    return kinds


def kind_of(name: str, tensor_names: set[str], kinds: list[Kind]) -> Kind | None:
    """The kind of a case: the longest prefix of its name, else the only kind whose marks it has; None if unknown."""
    named = [kind for kind in kinds if name.startswith(kind.prefix)]
    if named:
        return max(named, key=lambda kind: len(kind.prefix))
    marked = [kind for kind in kinds if kind.marks and kind.marks <= tensor_names]
    return max(marked, key=lambda kind: len(kind.marks)) if marked else None
