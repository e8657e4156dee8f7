"""Rows of a prediction with an affine output head: where their features are, and how they are cut into chunks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from di4c.contracts import Prediction


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

    def read(self, chunk: slice) -> Tensor:
        """The components' features of some of the rows: [P, M, H]."""
        return self.features[self.example[chunk], :, self.column[chunk]]

    def chunks(self, at_a_time: int) -> Iterator[slice]:
        """Slices of the rows; as many as the data ask for, since all of them run in one call of the output head."""
        return (slice(start, min(start + at_a_time, len(self))) for start in range(0, len(self), at_a_time))


def recomputed(read: Callable[..., Any], *arguments: Any, when: bool = True, same_masks: bool = False) -> Any:
    """read(*arguments); where there is a gradient to come, and `when`, it is called again for it, and keeps nothing until then.

    same_masks: whether it is to draw the dropout masks of the first call.
    """
    if not (when and torch.is_grad_enabled()):
        return read(*arguments)
    return checkpoint(read, *arguments, use_reentrant=False, preserve_rng_state=same_masks)


def sum_by_example(values: Tensor, number: Tensor, positions: int, size: int, block_bytes: int) -> Tensor:
    """Values of rows b·D + d, [R, …], added up by example: [size, …] float64, in a fixed order on every device.

    A joint is of order −D·log S: in float32 its rounding alone, 1e-3 at D = 1024, shows in the posterior weights.
    On a GPU `index_add` is atomic: there every row has a place [B, D] of its own, and the places are summed.
    """
    flat = values.flatten(1) if values.dim() > 1 else values[:, None]
    total = flat.new_zeros(size, flat.shape[1], dtype=torch.float64)
    if not values.is_cuda:
        at_a_time = max(1, block_bytes // (8 * max(1, flat.shape[1])))
        for some, of in zip(flat.split(at_a_time), (number // positions).split(at_a_time), strict=True):
            total = total.index_add(0, of, some.double())
    elif flat.shape[1]:
        places = total.new_zeros(size * positions, 1)
        sums = [
            places.expand(-1, some.shape[1]).index_put((number,), some.double()).unflatten(0, (size, positions)).sum(1)
            for some in flat.split(max(1, block_bytes // (8 * size * positions)), 1)
        ]
        total = torch.cat(sums, 1)
    return total.reshape(size, *values.shape[1:])


def _modulated(prediction: Prediction, number: Tensor, chunk_bytes: int) -> Tensor:
    """The components' features at the rows: [R, M, H], in a number of calls that depends on the shapes alone (ZeRO-3)."""
    module, code = prediction.modulation.module, prediction.modulation.code
    positions = prediction.x_t.shape[1]
    per_row = 4 * prediction.components * prediction.features.shape[-1] * prediction.features.element_size()
    rows = prediction.most_rows
    calls = min(max(1, -(-rows * per_row // chunk_bytes)), rows)

    def read(h: Tensor, code: Tensor, example: Tensor, position: Tensor) -> Tensor:
        return module(h, code[example], position)

    parts = []
    for some in number.tensor_split(calls):
        example, position = some // positions, some % positions
        arguments = (prediction.features[example, position], code, example, position)
        parts.append(recomputed(read, *arguments))
    return torch.cat(parts)
