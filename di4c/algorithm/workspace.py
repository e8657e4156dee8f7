"""The two chunk-sized tensors in which a pass over rows works, made once for all of its chunks."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Workspace:
    """logits, scratch [P, M, S] for as many rows as a chunk may have.

    Made once a pass, since tensors made anew for every chunk would raise the peak: between two of them the allocator places small
    tensors that stay, and the hole that a chunk leaves is too small for the next (seen with glibc: a heap that grew by a chunk
    each time, up to several times the budget). Both in one block, which glibc maps by itself and gives back at the end.
    """

    logits: Tensor
    scratch: Tensor

    @classmethod
    def empty(cls, rows: int, components: int, states: int, like: Tensor) -> "Workspace":
        """For chunks of at most `rows` rows, in float32 at least, on the device of `like`."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return cls(*torch.empty(2, rows, components, states, dtype=dtype, device=like.device))

    @property
    def component_rows(self) -> int:
        """How many distributions [S] each tensor holds."""
        return self.logits.shape[0] * self.logits.shape[1]

    def view(self, rows: int, components: int) -> "Workspace":
        """As much of it as takes [rows, components, S]."""
        return Workspace(*(x.flatten(0, 1)[: rows * components].unflatten(0, (rows, components)) for x in (self.logits, self.scratch)))

    def first(self, rows: int) -> "Workspace":
        """Of its first rows."""
        return Workspace(self.logits[:rows], self.scratch[:rows])
