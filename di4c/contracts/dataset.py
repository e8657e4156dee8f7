"""Data as tokens."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from di4c.draws import Draws
from di4c.errors import SpecError


@dataclass(frozen=True)
class Batch:
    """x_0 [B, D] int64 tokens; cond [B] int64 labels, or None."""

    x_0: Tensor
    cond: Tensor | None = None


class Split(ABC):
    """One split of a data set, by index."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Tensor, draws: Draws | None = None) -> Batch:
        """The examples `indices` [B] int64; augmentation, if any, takes its randomness from `draws` (None: none)."""


class DataSource(ABC):
    """Tokenised data. num_positions D; num_states: states of the data, without a mask; num_classes or None."""

    num_positions: int
    num_states: int
    num_classes: int | None = None

    @abstractmethod
    def split(self, name: str) -> Split:
        """The split "train" or "test" (held out)."""

    def fingerprint(self) -> str:
        """A short digest of the data, kept in checkpoints: a data set that changes under a run is an error."""
        return ""

    def prompt(self, **told: str) -> Tensor:
        """Known tokens for prompted sampling, −1 where the sampler is free: [D] int64.

        told: what a person says of a sample, in words of the data's own: text has prefix, suffix and infill. Raises SpecError
        where there is no such thing, DataError where it does not fit.
        """
        raise SpecError(f"{type(self).__name__} has no prompts")

    def save_grid(self, x: Tensor, path: Path, cond: Tensor | None = None) -> Path:
        """Writes samples x [n, D] for a person to look at (a PNG for images, a .txt for text); returns the file written."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its samples look")
