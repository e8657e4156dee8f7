"""Means of the loss terms since the last report, kept on the device; and metrics.csv."""

import csv
from pathlib import Path

import torch
from torch import Tensor

from di4c import ranks
from di4c.files import csv_text, replace_file


class RunningMeans:
    """Sums of the objective's terms over examples, in float64 on the device; no host sync until `read`.

    A term may be absent from some steps (all ranks alike): its mean is over the steps that have it.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._examples: dict[str, int] = {}
        self._sums: dict[str, Tensor] = {}

    def add(self, terms: dict[str, Tensor], examples: int) -> None:
        """Takes in terms [B] of this rank; `examples` is what all ranks together add."""
        for name, term in terms.items():
            self._examples[name] = self._examples.get(name, 0) + examples
            total = term.detach().double().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total

    def merge(self) -> None:
        """Moves the sums of all ranks to rank 0, so that they can be saved and go on as before. Collective."""
        if self._sums and ranks.world_size() > 1:
            totals = self._totals() * float(ranks.rank() == 0)
            self._sums = dict(zip(self._sums, totals.unbind(), strict=True))

    def read(self) -> dict[str, float]:
        """The means, equal on all ranks, {} of no examples; starts anew. Collective."""
        if not self._sums:
            return {}
        means = {n: s / self._examples[n] for n, s in zip(self._sums, self._totals().tolist(), strict=True)}
        self._sums, self._examples = {}, {}
        return means

    def state(self) -> dict[str, list]:
        """{term: [sum in hex, examples]}: what `load` needs, on rank 0 after `merge`."""
        return {n: [s.item().hex(), self._examples[n]] for n, s in self._sums.items()}

    def load(self, state: dict[str, list]) -> None:
        """Continues from a saved `state`; ranks other than 0 start from sums of zero."""
        mine = float(ranks.rank() == 0)
        self._examples = {n: examples for n, (_, examples) in state.items()}
        self._sums = {
            n: torch.tensor(float.fromhex(s) * mine, dtype=torch.float64, device=self.device)
            for n, (s, _) in state.items()
        }

    def _totals(self) -> Tensor:
        """The sums over ranks, in the order of the terms."""
        totals = torch.stack(list(self._sums.values()))
        return ranks.combined(totals)[0]


class MetricsFile:
    """metrics.csv: a row a report; a new column rewrites the file with its header widened."""

    def __init__(self, path: Path):
        self.path = path
        self.columns: list[str] = ["step"]

    def truncate(self, step: int) -> None:
        """Drops the rows after `step`, which a resumed run writes again, and a row that was cut off."""
        rows = [r for r in self.rows() if r["step"].isdigit() and int(r["step"]) <= step]
        self.columns = list(rows[0]) if rows else ["step"]
        replace_file(self.path, csv_text(rows, self.columns))

    def append(self, step: int, values: dict[str, float]) -> None:
        """Adds one row and flushes it."""
        row = {"step": str(step), **{k: repr(v) for k, v in values.items()}}
        new = [k for k in row if k not in self.columns]
        if new or not self.path.exists():
            rows = self.rows()
            self.columns += new
            replace_file(self.path, csv_text([*rows, row], self.columns))
            return
        with open(self.path, "a", newline="") as file:
            file.write(csv_text([row], self.columns, header=False))

    def rows(self) -> list[dict[str, str]]:
        """All complete rows as text."""
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            return [r for r in csv.DictReader(file) if None not in r.values() and None not in r]
