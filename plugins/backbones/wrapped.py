"""A user's own network as a backbone."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from di4c.contracts import AffineRows, Backbone, Context, IdentityOutputHead
from di4c.errors import SpecError

TIME_CONVENTIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "t": lambda t: t,
    "r": lambda t: 1 - t,
    "sigma": lambda t: -torch.log1p(-(1 - 1e-3) * t),
    "none": None,
}
"""What the network is told of the time t: t itself, r = 1 − t, MDLM's σ(t) = −log(1 − (1 − 1e-3)t), or nothing."""


class WrappedModule(Backbone):
    """f(x_t[, time][, cond]) → logits [B, D, S] as a backbone.

    Without `readout` the features are the logits themselves (the generic path). With `readout`, the dotted name of the submodule
    that maps features to logits (say "lm_head"), that submodule becomes the output head and losses go chunk by chunk.
    """

    def __init__(self, module: nn.Module, num_states: int, *, time: str, takes_cond: bool, readout: str | None = None):
        super().__init__()
        if time not in TIME_CONVENTIONS:
            raise SpecError(f"teacher.time: one of {', '.join(TIME_CONVENTIONS)}; found {time!r}")
        self.time, self.takes_cond, self.reads_time = time, takes_cond, TIME_CONVENTIONS[time] is not None
        self.readout: nn.Module = IdentityOutputHead()
        self.width = num_states
        if readout is not None:
            layer = detach_submodule(module, readout)
            self.readout = RowOutputHead(layer)
            self.width = getattr(layer, "in_features", 0)
        self.module = module

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None) -> Tensor:
        arguments = [x_t]
        if TIME_CONVENTIONS[self.time] is not None:
            arguments.append(TIME_CONVENTIONS[self.time](t).float())
        if self.takes_cond:
            arguments.append(cond)
        with self._autocast(x_t.device.type):
            output = self.module(*arguments)
        return getattr(output, "logits", output)

    def _autocast(self, device: str) -> contextlib.AbstractContextManager:
        """torch.autocast where the weights are of half precision: times stay float32, which such weights refuse to multiply."""
        dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)
        return torch.autocast(device, dtype=dtype) if dtype.itemsize == 2 else contextlib.nullcontext()


class RowOutputHead(AffineRows):
    """A user's output layer, called on rows."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.affine = type(layer) is nn.Linear

    @property
    def weight(self) -> Tensor:
        return self.layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.layer.bias

    def logits(self, h: Tensor, positions: Tensor | None) -> Tensor:
        dtype = next((p.dtype for p in self.layer.parameters() if p.is_floating_point()), h.dtype)
        return self.layer(h.to(dtype))


def detach_submodule(module: nn.Module, name: str) -> nn.Module:
    """The submodule `name`, replaced in `module` by the identity."""
    try:
        layer = module.get_submodule(name)
    except AttributeError as error:
        names = ", ".join(n for n, _ in module.named_children())
        raise SpecError(
            f"teacher.readout: {type(module).__name__} has no submodule {name!r}; it has {names}"
        ) from error
    module.set_submodule(name, nn.Identity())
    return layer
