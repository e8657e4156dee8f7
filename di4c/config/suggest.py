"""The end of an error message: the nearest known name, and all of them."""

import difflib
from collections.abc import Iterable


def suggestion(name: object, known: Iterable[str], label: str = "Known") -> str:
    """ " Did you mean 'mdlm'? Known: mdlm, module." for name = "mldm"."""
    names = sorted(known)
    asked = str(name).lower()
    near = difflib.get_close_matches(asked, names, n=2, cutoff=0.6)
    near = near or [known for known in names if len(asked) > 2 and asked in known.lower()][:2]
    question = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"{question} {label}: {', '.join(names) or 'none'}."
