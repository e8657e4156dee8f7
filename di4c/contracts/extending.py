"""Constructors that hand options on to another class, and show them to specs as their own."""

import inspect
from collections.abc import Callable
from typing import Any


def extending(base: Any, *, before: str | None = None) -> Callable[[Any], Any]:
    """Lets an __init__ that hands its **options to `base`, a class that it extends or makes, show these options by name.

    before: the option of its own that they are listed before; after all of its own, unless it is told.
    """

    def extended(init: Any) -> Any:
        own, inherited = (inspect.signature(f).parameters for f in (init, base.__init__))
        shown = [p for p in own.values() if p.kind is not p.VAR_KEYWORD]
        place = list(own).index(before) if before else len(shown)
        shown[place:place] = [p.replace(kind=p.KEYWORD_ONLY) for name, p in inherited.items() if name not in own]
        init.__signature__ = inspect.Signature(shown)
        init.__annotations__ = base.__init__.__annotations__ | init.__annotations__
        return init

    return extended
