"""The two chunk-sized tensors in which a pass over rows works, made once for all of its chunks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.kernels.backend import kernels_for


@dataclass(frozen=True)
class Buffers:
    """logits, scratch [P, M, S] for as many rows as a chunk may have, or None where kernels have tensors of their own.

    component_rows: P·M, the distributions [S] that a chunk may have.
    Made once a pass, since tensors made anew for every chunk would raise the peak: between two of them the allocator places small
    tensors that stay, and the hole that a chunk leaves is too small for the next (seen with glibc: a heap that grew by a chunk
    each time, up to several times the budget). Both in one block, which glibc maps by itself and gives back at the end.
    """

    component_rows: int
    logits: Tensor | None = None
    scratch: Tensor | None = None

    @classmethod
    def empty(cls, rows: int, components: int, states: int, like: Tensor) -> "Buffers":
        """For chunks of at most `rows` rows, in float32 at least, on the device of `like`."""
        if not kernels_for(like).BUFFERED:
            return cls(rows * components)
        dtype = torch.promote_types(like.dtype, torch.float32)
        return cls(rows * components, *torch.empty(2, rows, components, states, dtype=dtype, device=like.device))

    def of(self, dtype: torch.dtype) -> bool:
        """Whether they serve for logits of this dtype."""
        return self.logits is None or self.logits.dtype == dtype

    def view(self, rows: int, components: int) -> "Buffers":
        """As much of them as takes [rows, components, S]."""
        if self.logits is None:
            return self
        parts = (
            x.flatten(0, 1)[: rows * components].unflatten(0, (rows, components)) for x in (self.logits, self.scratch)
        )
        return Buffers(rows * components, *parts)
