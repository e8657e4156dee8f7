"""Every kind of case the verifier knows."""

from golden_cases import language, losses, pixels, vq
from golden_cases.checks import Kind


def all_kinds() -> list[Kind]:
    return [kind for system in (language, pixels, vq, losses) for kind in system.KINDS]


def kind_of(name: str, tensor_names: set[str], kinds: list[Kind]) -> Kind | None:
    """The kind of a case; None if unknown.

    By the longest prefix of its name, of kinds of whose marks it has at least one (a name alone may be of a kind that is not
    known here); else by all the marks of a kind.
    """
    named = [kind for kind in kinds if name.startswith(kind.prefix) and kind.marks & tensor_names]
    if named:
        return max(named, key=lambda kind: len(kind.prefix))
    marked = [kind for kind in kinds if kind.marks and kind.marks <= tensor_names]
    return max(marked, key=lambda kind: len(kind.marks)) if marked else None
