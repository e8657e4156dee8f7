"""Constructors that hand options on to another class, and show them to specs as their own."""

import inspect
from collections.abc import Callable
from typing import Any


def extending(base: Any) -> Callable[[Any], Any]:
    """Lets an __init__ that hands its **options to `base`, a class that it extends or makes, show these options by name."""

    def extended(init: Any) -> Any:
        own, inherited = (inspect.signature(f).parameters for f in (init, base.__init__))
        shown = {name: p for name, p in own.items() if p.kind is not p.VAR_KEYWORD}
        added = [p.replace(kind=p.KEYWORD_ONLY) for name, p in inherited.items() if name not in shown]
        init.__signature__ = inspect.Signature([*shown.values(), *added])
        init.__annotations__ = base.__init__.__annotations__ | init.__annotations__
        return init

    return extended
