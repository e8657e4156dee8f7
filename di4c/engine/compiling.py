"""torch.compile where it is asked for."""

from torch import nn

from di4c.contracts import Backbone


def compile_backbones(*modules: nn.Module, backend: str = "inductor") -> int:
    """Compiles the forward pass of every backbone in the modules, in place, and says how many there are.

    Parameters keep their names, so checkpoints do not change. Readouts are left alone: the losses and samplers call them for as
    many rows as the data ask for, and their sums are written by hand. Compiling begins with the first call, and takes minutes for a
    deep network.
    """
    found = {id(part): part for module in modules for part in module.modules() if isinstance(part, Backbone)}
    for backbone in found.values():
        backbone.compile(backend=backend)
    return len(found)
