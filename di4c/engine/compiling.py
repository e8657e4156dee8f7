"""torch.compile where it is asked for."""

from torch import nn

from di4c.contracts import Backbone


def compile_backbones(*modules: nn.Module, backend: str = "inductor") -> int:
    """Compiles the forward pass of every backbone in the modules, in place, and says how many there are.

    Parameters keep their names, so checkpoints do not change. Readouts are left alone: the losses and samplers call them for as
    many rows as the data ask for, and their sums are written by hand. Compiling begins with the first call, and takes minutes for a
    deep network. Inductor draws random numbers as torch does, so that dropout has the masks of a run that is not compiled.
    """
    found = {id(part): part for module in modules for part in module.modules() if isinstance(part, Backbone)}
    options = {"options": {"fallback_random": True}} if backend == "inductor" else {}
    for backbone in found.values():
        backbone.compile(backend=backend, **options)
    return len(found)
