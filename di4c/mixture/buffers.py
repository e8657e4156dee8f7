"""The two chunk-sized tensors in which a pass over rows works, made once for all of its chunks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.kernels.backend import kernels_for


@dataclass(frozen=True)
class Buffers:
    """logits, scratch [P, M, S] for as many rows as a chunk may have, or None where kernels have tensors of their own.

    Made once a pass, since tensors made anew for every chunk would raise the peak: between two of them the allocator places small
    tensors that stay, and the hole that a chunk leaves is too small for the next (seen with glibc: a heap that grew by a chunk
    each time, up to several times the budget). Both in one block, which glibc maps by itself and gives back at the end.
    """

    logits: Tensor | None
    scratch: Tensor | None

    @classmethod
    def empty(cls, rows: int, components: int, states: int, like: Tensor) -> "Buffers":
        """For chunks of at most `rows` rows, in float32 at least, on the device of `like`."""
        if not kernels_for(like).BUFFERED:
            return cls(None, None)
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return cls(*torch.empty(2, rows, components, states, dtype=dtype, device=like.device))

    def of(self, dtype: torch.dtype) -> bool:
        """Whether they serve for logits of this dtype."""
        return self.logits is None or self.logits.dtype == dtype

    def fit(self, components: int) -> int | None:
        """How many rows of so many components they hold; None where there is no limit but the budget."""
        return None if self.logits is None else self.logits.shape[0] * self.logits.shape[1] // components

    def view(self, rows: int, components: int) -> "Buffers":
        """As much of them as takes [rows, components, S]."""
        if self.logits is None:
            return self
        return Buffers(*(x.flatten(0, 1)[: rows * components].unflatten(0, (rows, components)) for x in (self.logits, self.scratch)))
