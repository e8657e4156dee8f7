"""Output heads logits = h·Wᵀ + b whose weights are in hand, so that a whole pass over rows is one call of the head."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, Prediction
from di4c.kernels.backend import kernels_apply, kernels_for
from di4c.kernels.products import autocast_dtype, bias_in, product
from di4c.kernels.rows import Logits, aligned_lines


@dataclass(frozen=True)
class Affine:
    """W [≥ S, H] and b ([≥ S], [≥ D, ≥ S] or None) of an output head, as its `reduction` gets them; stands in for the head."""

    weight: Tensor
    bias: Tensor | None
    num_states: int

    def __call__(self, h: Tensor, positions: Tensor, x_t: Tensor | None = None) -> Tensor:
        """Logits [P, M, S], float32 at least, of features h [P, M, H] at positions d [P]; without autograd."""
        logits = self.logits(h, positions)
        if logits.bias is None:
            return logits.z
        return logits.z + (logits.bias if logits.bias.dim() == 1 else logits.bias[positions, None])

    def logits(self, h: Tensor, positions: Tensor, excluded: tuple[int, ...] = (), out: Tensor | None = None) -> Logits:
        """The same with the excluded states at LOG_ZERO, written to `out` where it is given; a kernel may add the bias itself.

        Another prediction's features may be of another dtype than these weights, which were aligned with those of the loss.
        """
        assert not torch.is_grad_enabled()
        h, states = h.to(self.weight.dtype), slice(0, self.num_states)
        bias = None if self.bias is None else self.bias[..., states]
        left_to_kernel = kernels_for(h).ADDS_BIAS
        added = None if left_to_kernel else bias
        shared = None if added is None or added.dim() == 2 else added
        weight = self.weight if kernels_apply(self.weight) else self.weight[states]
        z = product(h.flatten(0, 1), weight, shared, None if out is None else out.view(-1, self.num_states))
        z = z[:, : self.num_states].view(*h.shape[:2], self.num_states)
        if added is not shared:
            z += added[positions, None]
        for state in excluded:
            z[..., state].add_(LOG_ZERO)
        return Logits(z, bias, positions) if left_to_kernel else Logits(z)

    def wide(self) -> "Affine":
        """The same with `aligned_lines` of W."""
        return replace(self, weight=aligned_lines(self.weight, self.num_states)) if kernels_apply(self.weight) else self

    def aligned(self, h: Tensor) -> tuple[Tensor, "Affine"]:
        """h and the factors of the product in one dtype: that of autocast where it is on, else the weights'."""
        dtype = autocast_dtype(h) or self.weight.dtype
        return h.to(dtype), replace(self, weight=self.weight.to(dtype), bias=bias_in(dtype, self.bias))


def within_output_head(
    prediction: Prediction, features: Tensor, read: Callable[[Tensor, Affine], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """read(features, affine) from inside one call of an affine output head: under ZeRO-3 its weight is gathered once."""

    def reduction(h: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        h, affine = Affine(weight, bias, prediction.num_states).aligned(h)
        return read(h, affine.wide())

    return prediction.output_head(features, reduction=reduction)


def as_given(x: Tensor) -> torch.autocast:
    """A context in which products keep the dtypes of their factors, on the device of x, whatever autocast says outside."""
    return torch.autocast(x.device.type, enabled=False)
