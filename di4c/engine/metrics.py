"""Means of the loss terms since the last report, kept on the device; and metrics.csv."""

import csv
import io
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from di4c.engine import ranks
from di4c.engine.archive import replace_file


class RunningMeans:
    """Sums of the objective's terms over examples in float64 on the device; no host sync until `read`."""

    def __init__(self, device: torch.device):
        self.device = device
        self.names: list[str] = []
        self.examples = 0
        self._sums: Tensor | None = None

    def add(self, terms: dict[str, Tensor], examples: int) -> None:
        """Takes in terms [B] of this rank; `examples` is what all ranks together add."""
        sums = torch.stack([v.detach().double().sum() for v in terms.values()])
        if self._sums is None:
            self.names, self._sums = list(terms), torch.zeros_like(sums)
        self._sums += sums
        self.examples += examples

    def merge(self) -> None:
        """Moves the sums of all ranks to rank 0, so that they can be saved and go on as before. Collective."""
        if self._sums is not None and ranks.world_size() > 1:
            dist.all_reduce(self._sums)
            self._sums *= float(ranks.rank() == 0)

    def read(self) -> dict[str, float]:
        """The means, equal on all ranks, {} of no examples; starts anew. Collective."""
        if not self.examples:
            return {}
        if ranks.world_size() > 1:
            dist.all_reduce(self._sums)
        means = (self._sums / self.examples).tolist()
        self._sums.zero_()
        self.examples = 0
        return dict(zip(self.names, means, strict=True))

    def state(self) -> dict[str, Any]:
        """What `load` needs, on rank 0 after `merge`."""
        sums = [] if self._sums is None else [v.hex() for v in self._sums.tolist()]
        return {"names": self.names, "sums": sums, "examples": self.examples}

    def load(self, state: dict[str, Any]) -> None:
        """Continues from a saved `state`; ranks other than 0 start from zero."""
        self.names, self.examples = state["names"], state["examples"]
        sums = torch.tensor([float.fromhex(v) for v in state["sums"]], dtype=torch.float64, device=self.device)
        self._sums = sums * float(ranks.rank() == 0) if state["sums"] else None


class MetricsFile:
    """metrics.csv: a row a report; a new column rewrites the file with its header widened."""

    def __init__(self, path: Path):
        self.path = path
        self.columns: list[str] = ["step"]

    def truncate(self, step: int) -> None:
        """Drops the rows after `step`, which a resumed run writes again, and a row that was cut off."""
        rows = [r for r in self.rows() if r["step"].isdigit() and int(r["step"]) <= step]
        self.columns = list(rows[0]) if rows else ["step"]
        replace_file(self.path, self._text(rows, header=True))

    def append(self, step: int, values: dict[str, float]) -> None:
        """Adds one row and flushes it."""
        row = {"step": str(step), **{k: repr(v) for k, v in values.items()}}
        new = [k for k in row if k not in self.columns]
        if new or not self.path.exists():
            rows = self.rows()
            self.columns += new
            replace_file(self.path, self._text([*rows, row], header=True))
            return
        with open(self.path, "a", newline="") as file:
            file.write(self._text([row], header=False))

    def rows(self) -> list[dict[str, str]]:
        """All complete rows as text."""
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            return [r for r in csv.DictReader(file) if None not in r.values() and None not in r]

    def _text(self, rows: list[dict[str, str]], header: bool) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()
