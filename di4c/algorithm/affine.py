"""Readouts logits = h·Wᵀ + b whose weights are in hand, so that a whole pass over rows is one call of the readout."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from di4c.contracts import LOG_ZERO, Prediction


@dataclass(frozen=True)
class Affine:
    """W [≥ S, H] and b ([≥ S], [≥ D, ≥ S] or None) of a readout, as its `reduction` gets them; stands in for the readout."""

    weight: Tensor
    bias: Tensor | None
    num_states: int

    def __call__(self, h: Tensor, positions: Tensor, x_t: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
        """Logits [P, M, S], float32 at least, of features h [P, M, H] at positions d [P], written to `out`; without autograd.

        Another prediction's features may be of another dtype than these weights, which were aligned with those of the loss.
        """
        assert not torch.is_grad_enabled()
        h = h.to(self.weight.dtype)
        states = slice(0, self.num_states)
        shared = self.bias[states] if self.bias is not None and self.bias.dim() == 1 else None
        out = out if out is not None else h.new_empty(*h.shape[:2], self.num_states, dtype=widened(h.new_empty(0)).dtype)
        _linear(h.flatten(0, 1), self.weight[states], shared, out.view(-1, self.num_states))
        return out if self.bias is None or shared is not None else out.add_(self.bias[positions, None, states])

    def aligned(self, h: Tensor) -> tuple[Tensor, "Affine"]:
        """h and the weights in one dtype: that of autocast where it is on, else the weights'."""
        dtype = autocast_dtype(h) or self.weight.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return h.to(dtype), replace(self, weight=self.weight.to(dtype), bias=bias)


def is_affine(prediction: Prediction) -> bool:
    """Whether log-probs at active rows are a log-softmax of h·Wᵀ + b with some states excluded."""
    excluded = prediction.parameterisation.excluded
    return getattr(prediction.readout, "affine", False) and excluded is not None and not prediction.averaged


def within_readout(
    prediction: Prediction, features: Tensor, read: Callable[[Tensor, Affine], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """read(features, affine) from inside one call of an affine readout: under ZeRO-3 its weight is gathered once."""

    def reduction(h: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        h, affine = Affine(weight, bias, prediction.num_states).aligned(h)
        return read(h, affine)

    return prediction.readout(features, reduction=reduction)


@dataclass(frozen=True)
class Rows:
    """R rows b·D + d of a prediction, and where their components' features are.

    features: [E, M, F, H]; row r's are features[example[r], :, column[r]]. number: [R], the rows; position: [R], d.
    """

    features: Tensor
    number: Tensor
    position: Tensor
    example: Tensor
    column: Tensor

    @classmethod
    def active(cls, prediction: Prediction, chunk_bytes: int) -> "Rows":
        """The rows with uncertainty."""
        return cls.at(prediction, uncertain_rows(prediction), chunk_bytes)

    @classmethod
    def at(cls, prediction: Prediction, number: Tensor, chunk_bytes: int) -> "Rows":
        """The rows of these numbers. A modulation is applied here, to them alone, and recomputed in the backward pass."""
        positions = prediction.x_t.shape[1]
        example, position = number // positions, number % positions
        if prediction.modulation is None:
            stacked = prediction.features.unflatten(0, (-1, prediction.components))
            return cls(stacked, number, position, example, position)
        modulated = _modulated(prediction, number, chunk_bytes)[:, :, None]
        each = torch.arange(len(number), device=number.device)
        return cls(modulated, number, position, each, torch.zeros_like(each))

    def __len__(self) -> int:
        return len(self.number)


def uncertain_rows(prediction: Prediction) -> Tensor:
    """The rows b·D + d with uncertainty: [R]. A GPU has to be waited for, since their number is a shape."""
    return prediction.active().flatten().nonzero().squeeze(-1)


def lowered(logits: Tensor, excluded: tuple[int, ...]) -> Tensor:
    """logits [P, M, S] with LOG_ZERO added to the excluded states, in place: they are this chunk's own."""
    for state in excluded:
        logits[..., state] += LOG_ZERO
    return logits


def rows_at_a_time(prediction: Prediction, chunk_bytes: int) -> int:
    """How many rows' logits fit the budget, at least 1."""
    return max(1, chunk_bytes // (prediction.components * prediction.num_states * max(prediction.features.element_size(), 4)))


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """That of autocast on the device of x, None where it is off."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def as_given(x: Tensor) -> torch.autocast:
    """A context in which products keep the dtypes of their factors, on the device of x, whatever autocast says outside."""
    return torch.autocast(x.device.type, enabled=False)


def widened(x: Tensor) -> Tensor:
    """x in float32 at least; reductions run in it."""
    return x if x.dtype == torch.float64 else x.float()


def _modulated(prediction: Prediction, number: Tensor, chunk_bytes: int) -> Tensor:
    """The components' features at the rows: [R, M, H], in a number of calls that depends on the shapes alone (ZeRO-3)."""
    module, code = prediction.modulation.module, prediction.modulation.code
    positions = prediction.x_t.shape[1]
    per_row = 4 * prediction.components * prediction.features.shape[-1] * prediction.features.element_size()
    rows = prediction.x_t.numel()
    calls = min(max(1, -(-rows * per_row // chunk_bytes)), rows)

    def read(h: Tensor, code: Tensor, example: Tensor, position: Tensor) -> Tensor:
        return module(h, code[example], position)

    parts = []
    for some in number.tensor_split(calls):
        example, position = some // positions, some % positions
        arguments = (prediction.features[example, position], code, example, position)
        recompute = torch.is_grad_enabled()
        parts.append(checkpoint(read, *arguments, use_reentrant=False, preserve_rng_state=False) if recompute else read(*arguments))
    return torch.cat(parts)


def _linear(h: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """out [R, S] = h·Wᵀ + b. A bias of fewer bits than out's is added after widening."""
    if out.dtype != h.dtype:
        out.copy_(h @ weight.T)
        if bias is not None:
            out.add_(bias)
    elif bias is None:
        torch.mm(h, weight.T, out=out)
    else:
        torch.addmm(bias, h, weight.T, out=out)
