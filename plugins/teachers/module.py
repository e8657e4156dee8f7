"""A user's existing network as a teacher, without copying its code here."""

import importlib

from di4c.contracts import ForwardProcess, Parameterisation, Teacher, strict_load
from di4c.errors import SpecError
from di4c_plugins.backbones.wrapped import WrappedModule
from di4c_plugins.teachers.containers import named_as, read_file, tensors_at


class ModuleTeacher(Teacher):
    """Any nn.Module f(x_t[, t | σ | r][, cond]) → logits [B, D, S], named as "pkg.module:Class".

    options: the class's own keyword arguments. checkpoint: a torch or safetensors file with its state dict (under
    checkpoint_key, names beginning with checkpoint_prefix, if so, and others left out; what DDP and torch.compile add to names is cut off). time: "t", "sigma",
    "r" or "none". takes_cond: whether labels are its next argument. readout: dotted name of its output layer, if it has one that
    maps features to logits; else the generic path reads whole logits.
    """

    def __init__(
        self,
        process: ForwardProcess,
        num_positions: int,
        *,
        module: str,
        parameterisation: Parameterisation,
        time: str,
        takes_cond: bool = False,
        options: dict | None = None,
        checkpoint: str | None = None,
        checkpoint_key: str | None = None,
        checkpoint_prefix: str = "",
        readout: str | None = None,
    ):
        self.process, self.parameterisation, self.num_positions = process, parameterisation, num_positions
        network = import_class(module)(**(options or {}))
        if checkpoint is not None:
            state = tensors_at(read_file(checkpoint), checkpoint_key, checkpoint)
            strict_load(network, named_as(network, state, checkpoint, checkpoint_prefix), checkpoint)
        self.backbone = WrappedModule(network, process.num_states, time=time, takes_cond=takes_cond, readout=readout)

    @staticmethod
    def portable_entry(entry: dict) -> dict:
        """The entry without its checkpoint: an export carries the weights itself."""
        return {key: value for key, value in entry.items() if not key.startswith("checkpoint")}


def import_class(target: str) -> type:
    """The class named "pkg.module:Class"."""
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"teacher.module: cannot import {target!r} ({error}); write it as pkg.module:Class") from error
