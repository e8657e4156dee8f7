"""A data law that is a table over a small space, for experiments whose truth is known exactly."""

import hashlib
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from di4c.contracts import DataSource, Draws, Split
from di4c.errors import DataError, SpecError
from di4c.paths import with_ending
from di4c_plugins.datasets.digits import TensorSplit
from di4c_plugins.processes.enumeration import every_state


class Enumerable(DataSource):
    """x_0 with the law `probs` on {0, …, states − 1}^positions, in raster order (the last position changes fastest).

    Without `probs` a random table, ∝ exp(spread·g) with g standard normal by `table_seed`; a large spread makes
    strongly dependent positions. A split has `examples` examples whose frequencies are the table's to within
    1/examples (inversion at equal steps), in an order of its own; "test" has the same frequencies as "train".
    """

    def __init__(
        self,
        *,
        positions: int,
        states: int,
        probs: list[float] | None = None,
        table_seed: int = 0,
        spread: float = 1.0,
        examples: int = 4096,
    ):
        self.num_positions, self.num_states, self.examples = positions, states, examples
        self.states = every_state(states, positions)
        if probs is None:
            table = (spread * Draws(table_seed, path=("table",)).normal(len(self.states))[0]).softmax(0)
        else:
            table = torch.tensor(probs, dtype=torch.float64)
        if len(table) != len(self.states) or not table.isfinite().all() or (table < 0).any() or table.sum() <= 0:
            raise SpecError(f"data.probs: {len(self.states)} non-negative numbers, one a state; found {len(table)}")
        self.probs = table / table.sum()

    def split(self, name: str) -> Split:
        if name not in self._splits:
            raise DataError(f"enumerable has no split {name!r}; its splits are 'train' and 'test'")
        return self._splits[name]

    def fingerprint(self) -> str:
        return hashlib.sha256(self.probs.numpy().tobytes()).hexdigest()[:16]

    def save_grid(self, x: Tensor, path: Path, cond: Tensor | None = None) -> Path:
        """Writes every state with its probability and its frequency among x [n, D]."""
        path = with_ending(path, ".txt")
        frequency = (x.cpu()[:, None] == self.states).all(-1).double().mean(0)
        rows = zip(self.states.tolist(), self.probs.tolist(), frequency.tolist(), strict=True)
        lines = [f"{' '.join(map(str, state))}  {p:.4f}  {f:.4f}" for state, p, f in rows]
        path.write_text("\n".join(["state  probability  frequency", *lines, ""]), encoding="utf-8")
        return path

    @cached_property
    def _splits(self) -> dict[str, TensorSplit]:
        levels = (torch.arange(self.examples, dtype=torch.float64) + 0.5) / self.examples
        sorted_examples = torch.searchsorted(self.probs.cumsum(0), levels, right=True).clamp_max(len(self.probs) - 1)
        orders = {name: Draws(0, path=("order", name)).permutation(self.examples)[0] for name in ("train", "test")}
        return {name: TensorSplit(self.states[sorted_examples[order]]) for name, order in orders.items()}
