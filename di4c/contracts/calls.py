"""Whether a module may be left out: its weights used without a call of it, or its passes replayed."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.module import _has_any_global_hook

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Calls:
    """Those of some modules. True while one of them does more, or other things, than its class says: hooks, or a forward of its own."""

    def __init__(self, modules: Iterable[nn.Module]):
        parts = list(modules)
        self.hooks = [getattr(part, name) for part in parts for name in HOOKS]
        self.attributes = [vars(part) for part in parts]

    def __bool__(self) -> bool:
        return any(self.hooks) or bool(_has_any_global_hook()) or any("forward" in own for own in self.attributes)
