"""Draws from rows of logits, without their log-probabilities where an affine output head makes them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from di4c.kernels.backend import kernels_apply, kernels_for
from di4c.kernels.products import autocast_dtype, bias_in, product
from di4c.kernels.rows import Lines, Logits, aligned_lines


def draw_from(logits: Logits, uniform: Tensor) -> Tensor:
    """A state of each row of logits [P, 1, S], by inversion of uniform [P] float64: [P] int64."""
    z = logits.z
    return kernels_for(z).row_draw(logits, Lines(z.new_ones(1), uniform[:, None]), None)[:, 0]


@dataclass(frozen=True)
class SoftmaxRows:
    """p = softmax(h·Wᵀ + b), the excluded states left out: W [≥ S, H], b [S] of the same dtype, [≥ D, S] or None."""

    weight: Tensor
    bias: Tensor | None
    num_states: int
    excluded: tuple[int, ...]

    @classmethod
    def of(
        cls, h: Tensor, weight: Tensor, bias: Tensor | None, num_states: int, excluded: tuple[int, ...]
    ) -> "SoftmaxRows":
        """Of what a Reduction is given, in the dtype of autocast where it is on, else in the weights'."""
        dtype, states = autocast_dtype(h) or weight.dtype, slice(0, num_states)
        weight, bias = weight.to(dtype), None if bias is None else bias_in(dtype, bias[..., states])
        weight = aligned_lines(weight, num_states) if kernels_apply(weight) else weight[states]
        return cls(weight, bias, num_states, excluded)

    def draw(self, h: Tensor, position: Tensor, uniform: Tensor) -> Tensor:
        """A state of each row of features [P, H] at positions d [P], by inversion of uniform [P] float64: [P] int64."""
        with torch.autocast(h.device.type, enabled=False):
            return draw_from(self._logits(h.to(self.weight.dtype), position), uniform)

    def _logits(self, h: Tensor, position: Tensor) -> Logits:
        """[P, 1, S], float32 at least, on a GPU not rounded to a narrow dtype before; a kernel may add the bias itself."""
        bias, left_to_kernel = self.bias, kernels_for(h).ADDS_BIAS
        shared = bias if bias is not None and bias.dim() == 1 and not left_to_kernel else None
        z = (product if h.is_cuda else F.linear)(h, self.weight, shared)[:, : self.num_states]
        z = z if z.dtype == torch.float64 else z.float()
        if bias is not shared and not left_to_kernel:
            z += bias[position]
        for state in self.excluded:
            z[:, state] = -math.inf  # below states that the network itself finds impossible, at whatever logits
        return Logits(z[:, None], bias, position) if left_to_kernel else Logits(z[:, None])
