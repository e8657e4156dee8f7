"""Equal inputs of a batch: every distinct (x_t, t, label) is to be evaluated once, and read once for the samples of all its examples."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from di4c.contracts import Prediction
from di4c.contracts.sharing import Sharing
from di4c.mixture.rows import sum_by_example
from di4c.ranks import combined


def equal_inputs(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Sharing | None:
    """Which examples have equal x_t [B, D], t [B] and labels [B]; None if on some rank all differ.

    The ranks agree on it, so all of them must call. A GPU has to be waited for.
    """
    columns = [x_t, t.double().view(torch.int64)[:, None], *([] if cond is None else [cond[:, None]])]
    _, of, counts = torch.cat(columns, 1).unique(dim=0, return_inverse=True, return_counts=True)
    most = _largest_of_ranks(len(counts), x_t.device)
    return Sharing(of, tuple(counts.tolist()), most) if most < len(x_t) else None


def draws_masks(module: nn.Module) -> bool:
    """Whether some dropout is active: its masks belong to examples, which equal inputs do not make equal."""
    dropouts = (m for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd))
    return any(dropout.training and dropout.p > 0 for dropout in dropouts)


def once(
    predict: Callable[..., Prediction],
    sharing: Sharing | None,
    x_t: Tensor,
    t: Tensor,
    cond: Tensor | None,
    *lam: Tensor,
    **options: Any,
) -> Prediction:
    """predict(x_t, t, cond, *lam, **options), asked once for equal inputs: there λ, if it is given, is the same for all examples."""
    if sharing is None:
        return predict(x_t, t, cond, *lam, **options)
    first = sharing.first
    inputs = x_t[first], t[first], None if cond is None else cond[first]
    return replace(predict(*inputs, *(each[: len(first)] for each in lam), **options), sharing=sharing)


@dataclass(frozen=True)
class Pairs:
    """The Q pairs of an uncertain row and an example that has its input, where examples share inputs; sorted by row.

    row [Q]: which of the R rows; number [Q]: b·D + d of the example b. start [R + 1]: the first pair of each row. widest: the most
    pairs of a row.
    """

    row: Tensor
    number: Tensor
    start: Tensor
    widest: int

    @classmethod
    def of(cls, sharing: Sharing, number: Tensor, positions: int) -> "Pairs":
        """Of the rows g·D + d of inputs, `number` [R] in ascending order. A GPU has to be waited for."""
        group = number // positions
        each = sharing.number[group]
        start = torch.nn.functional.pad(each.cumsum(0), (1, 0))
        row = torch.arange(len(number), device=number.device).repeat_interleave(each, output_size=int(start[-1]))
        within = torch.arange(len(row), device=row.device) - start[row]
        example = sharing.order[sharing.start[group[row]] + within]
        return cls(row, example * positions + number[row] % positions, start, max(sharing.counts))

    def cut(self, bounds: list[int]) -> list[slice]:
        """The pairs of the rows between each two bounds."""
        places = self.start[torch.tensor(bounds, device=self.start.device)].tolist()
        return [slice(a, b) for a, b in itertools.pairwise(places)]


@dataclass(frozen=True)
class Places:
    """The uncertain rows of a prediction, number [R], where examples share them with their pairs, and how both add up by example."""

    number: Tensor
    positions: int
    size: int
    sharing: Sharing | None
    pairs: Pairs | None
    block_bytes: int

    @classmethod
    def of(cls, prediction: Prediction, block_bytes: int) -> "Places":
        number, (size, positions), sharing = prediction.uncertain_rows(), prediction.x_t.shape, prediction.sharing
        pairs = None if sharing is None else Pairs.of(sharing, number, positions)
        return cls(number, positions, size, sharing, pairs, block_bytes)

    def sum_of_rows(self, values: Tensor) -> Tensor:
        """Values of rows [R, …] added up: [B, …] float64."""
        total = sum_by_example(values, self.number, self.positions, self.size, self.block_bytes)
        return total if self.sharing is None else total[self.sharing.of]

    def sum_of_samples(self, values: Tensor) -> Tensor:
        """Values [R, …], or [Q, …] of pairs, added up: [B, …] float64."""
        if self.pairs is None:
            return self.sum_of_rows(values)
        return sum_by_example(values, self.pairs.number, self.positions, len(self.sharing.of), self.block_bytes)


@dataclass(frozen=True)
class Chunk:
    """The rows that are read at once, and the pairs of theirs; the same slice where every row has one."""

    rows: slice
    pairs: slice


def _largest_of_ranks(number: int, device: torch.device) -> int:
    """The largest of all ranks' numbers."""
    (largest,) = combined(torch.tensor([number], device=device), op=torch.distributed.ReduceOp.MAX)
    return int(largest)
