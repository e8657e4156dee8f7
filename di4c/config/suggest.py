"""The end of an error message: the nearest known name, and all of them."""

import difflib
from collections.abc import Iterable


def suggestion(name: object, known: Iterable[str], label: str = "Known") -> str:
    """" Did you mean 'mdlm'? Known: mdlm, module." for name = "mldm"."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=2, cutoff=0.6)
    question = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"{question} {label}: {', '.join(names) or 'none'}."
