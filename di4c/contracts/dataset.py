"""Data as tokens."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from di4c.contracts.decoder import Decoder
from di4c.contracts.process import ForwardProcess
from di4c.draws import Draws
from di4c.errors import DataError, SpecError


@dataclass(frozen=True)
class Batch:
    """x_0 [B, D] int64 tokens; cond [B] int64 labels, or None."""

    x_0: Tensor
    cond: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same examples on a device."""
        return Batch(self.x_0.to(device), None if self.cond is None else self.cond.to(device))


class Split(ABC):
    """One split of a data set, by index."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Tensor, draws: Draws | None = None) -> Batch:
        """The examples `indices` [B] int64; augmentation, if any, takes its randomness from `draws` (None: none)."""

    def labels(self) -> Tensor | None:
        """All labels [n] int64 in order, where they are at hand without reading the examples; else None."""
        return None


class CheckedSplit(Split):
    """A split whose tokens are checked as they enter: what is no state of the data never reaches a loss.

    Raises DataError for a token outside 0, …, num_states − 1, and for the process's mask state: there x_0 would be hidden
    where the loss takes it for seen, and its bound be meaningless.
    """

    def __init__(self, split: Split, name: str, num_states: int, mask_index: int | None):
        self.split, self.name, self.num_states, self.mask_index = split, name, num_states, mask_index

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Tensor, draws: Draws | None = None) -> Batch:
        batch = self.split.batch(indices, draws)
        outside = (batch.x_0 < 0) | (batch.x_0 >= self.num_states)
        self._refuse(outside, indices, batch, f"the data has states 0 to {self.num_states - 1}")
        if self.mask_index is not None:
            told = (
                "which is the process's mask; leave it out of the data, or let process.mask_index be a state of its own"
            )
            self._refuse(batch.x_0 == self.mask_index, indices, batch, told)
        return batch

    def _refuse(self, wrong: Tensor, indices: Tensor, batch: Batch, told: str) -> None:
        if wrong.any():
            row, position = wrong.nonzero()[0].tolist()
            example, token = int(indices[row]), int(batch.x_0[row, position])
            raise DataError(f"data: {self.name} example {example} has token {token} at position {position}, {told}")


class DataSource(ABC):
    """Tokenised data. num_positions D; num_states: states of the data, without a mask; num_classes or None.

    label_names: of the classes, in order, or None. Sizes, names, the training labels and `decoder` go into a model's export.
    """

    num_positions: int
    num_states: int
    num_classes: int | None = None
    label_names: list[str] | None = None

    @abstractmethod
    def split(self, name: str) -> Split:
        """The split "train" or "test" (held out)."""

    def checked_split(self, name: str, process: ForwardProcess | None) -> Split:
        """The split, its tokens checked against the data's states and the process's mask as they enter."""
        return CheckedSplit(
            self.split(name), name, self.num_states, process.mask_index if process is not None else None
        )

    def fingerprint(self) -> str:
        """A short digest of the data, kept in checkpoints: a data set that changes under a run is an error."""
        return ""

    def prompt(self, **told: str) -> Tensor:
        """Known tokens for prompted sampling, −1 where the sampler is free: [D] int64.

        told: what a person says of a sample, in words of the data's own: text has prefix, suffix and infill. Raises SpecError
        where there is no such thing, DataError where it does not fit.
        """
        decoder = self.decoder()
        if decoder is None or type(decoder).prompt is Decoder.prompt:
            raise SpecError(f"{type(self).__name__} has no prompts")
        return decoder.prompt(**told)

    def decoder(self) -> Decoder | None:
        """What makes samples visible without these data; None where nothing does."""
        return None

    def save_grid(self, x: Tensor, path: Path, cond: Tensor | None = None) -> Path:
        """Writes samples x [n, D] for a person to look at (a PNG for images, a .txt for text); returns the file written.

        Its ending is added to `path` (`di4c.paths.with_ending`), so that two paths are two files.
        """
        decoder = self.decoder()
        if decoder is None:
            raise NotImplementedError(f"{type(self).__name__} does not say how its samples look")
        return decoder.save_grid(x, path, cond)
