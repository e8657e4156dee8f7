"""What a pass over the rows of a prediction with an affine readout is asked for, and how it is cut into chunks."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.algorithm.affine import Affine, Rows, lowered
from di4c.algorithm.linear_chunk import ChunkQuery
from di4c.algorithm.target import Marginals
from di4c.algorithm.workspace import Workspace

PASS_CHUNKS = 4
"""What a pass over the rows may hold beside features, weights and their gradients, in chunks."""

NAMES = ("chosen", "kl", "componentwise_kl")


@dataclass(frozen=True)
class RowQuery:
    """A query at the R rows: tokens [R, N], the target's marginals, and which of NAMES are needed."""

    needs: frozenset
    tokens: Tensor | None = None
    target: Marginals | None = None


def room_for_logits(queries: list[RowQuery], chunk_bytes: int) -> int:
    """Bytes that the logits of a chunk may take, so that a pass holds PASS_CHUNKS chunks' bytes however many rows it has.

    Two copies of the logits share what kept marginals leave; without any, reading a target again takes the other two.
    """
    tables = {id(query.target): query.target.kept_bytes for query in queries if query.target is not None}
    kept = sum(tables.values())
    return (PASS_CHUNKS * chunk_bytes - kept) // 2 if kept else chunk_bytes


@dataclass(frozen=True)
class Plan:
    """What a pass over the rows needs beside features and weights.

    autocast: its dtype where the pass was called, None where it is off. Targets are read in it, in the backward pass as well.
    """

    rows: Rows
    queries: list[RowQuery]
    log_weights: Tensor
    excluded: tuple[int, ...]
    at_a_time: int
    own_readout: torch.nn.Module
    autocast: torch.dtype | None

    def chunks(self) -> Iterator[slice]:
        """Slices of the rows; as many as the data ask for, since all of them run in one call of the readout."""
        return (slice(start, start + self.at_a_time) for start in range(0, len(self.rows), self.at_a_time))

    def chunk_queries(self, chunk: slice, affine: Affine, room: Workspace | None = None) -> list[ChunkQuery]:
        """The queries at the rows of a chunk; marginals that two queries share are read once. `room` is free to work in."""
        number, read = self.rows.number[chunk], {}
        found = []
        for query in self.queries:
            q = None
            if query.target is not None:
                key = id(query.target.prediction)
                if key not in read:
                    with torch.autocast(number.device.type, dtype=self.autocast, enabled=self.autocast is not None):
                        read[key] = query.target.probs(number, self.own_readout, affine, room).to(self.log_weights)
                q = read[key]
            found.append(ChunkQuery(query.needs, None if query.tokens is None else query.tokens[chunk], q))
        return found

    def logits(self, features: Tensor, chunk: slice, affine: Affine, out: Tensor) -> tuple[Tensor, Tensor]:
        """(h [P·M, H], logits [P, M, S]) of a chunk, excluded states lowered; the logits are written to `out`."""
        rows = self.rows
        h = features[rows.example[chunk], :, rows.column[chunk]]
        return h.flatten(0, 1), lowered(affine(h, rows.position[chunk], out=out), self.excluded)

    def workspace(self, affine: Affine) -> Workspace:
        """For a chunk."""
        return Workspace.empty(min(self.at_a_time, len(self.rows)), len(self.log_weights), affine.num_states, self.log_weights)


def by_query(plan: Plan, gradients: list[Tensor]) -> list[dict[str, Tensor]]:
    values = iter(gradients)
    return [{name: next(values) for name in NAMES if name in query.needs} for query in plan.queries]


def no_rows(plan: Plan) -> tuple[Tensor, ...]:
    """The values where no position is uncertain."""
    wide, components = plan.log_weights, len(plan.log_weights)
    shapes = [
        (0, components, query.tokens.shape[1]) if name == "chosen" else (0,)
        for query in plan.queries for name in NAMES if name in query.needs
    ]
    return tuple(wide.new_zeros(shape) for shape in shapes)
