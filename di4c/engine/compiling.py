"""torch.compile where it is asked for."""

from torch import nn

from di4c.contracts import Backbone


def compile_backbones(*modules: nn.Module, backend: str = "inductor") -> int:
    """Compiles the network of every backbone in the modules, in place, and says how many there are.

    Where a backbone repeats a block, the block is compiled, once for all of its copies: seconds, where the whole of a deep network
    takes minutes. Parameters keep their names, so checkpoints do not change. Readouts are left alone: the losses and samplers call
    them for as many rows as the data ask for, and their sums are written by hand. Compiling begins with the first call. Inductor
    draws random numbers as torch does, so that dropout has the masks of a run that is not compiled.
    """
    found = {id(part): part for module in modules for part in module.modules() if isinstance(part, Backbone)}
    options = {"options": {"fallback_random": True}} if backend == "inductor" else {}
    for backbone in found.values():
        for part in repeated(backbone) or [backbone]:
            part.compile(backend=backend, **options)
    return len(found)


def repeated(module: nn.Module) -> list[nn.Module]:
    """The modules of the outermost nn.ModuleLists below it whose modules are alike, in their order."""
    found: list[nn.Module] = []
    for child in module.children():
        parts = list(child) if isinstance(child, nn.ModuleList) else []
        found += parts if len({_kind(part) for part in parts}) == 1 < len(parts) else repeated(child)
    return found


def _kind(module: nn.Module) -> tuple:
    """Equal for modules whose code and sizes are the same."""
    shapes = tuple((name, p.shape, p.dtype, p.requires_grad) for name, p in module.named_parameters())
    return tuple(type(part) for part in module.modules()), shapes
