"""What makes samples visible, without the data that a model was trained on: it travels in exports."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor

from di4c.errors import SpecError


class Decoder(ABC):
    """Tokens → texts or images. A plain object that needs no data set, no network and no other file once it is restored."""

    @abstractmethod
    def decode(self, x: Tensor) -> list[Any]:
        """What samples x [n, D] are: n strings for text, n PIL images (mode L or RGB) for images."""

    @abstractmethod
    def save_grid(self, x: Tensor, path: Path, cond: Tensor | None = None) -> Path:
        """Writes samples x [n, D] for a person to look at; returns the file written. See DataSource.save_grid."""

    def prompt(self, **told: str) -> Tensor:
        """Known tokens for prompted sampling, −1 where the sampler is free: [D] int64. See DataSource.prompt."""
        raise SpecError(f"{type(self).__name__}: these samples have no prompts")

    @abstractmethod
    def save(self, folder: Path) -> dict[str, Any]:
        """Writes what is large to files in the folder; the rest as plain values, for `restored`. SpecError where it cannot travel."""

    @classmethod
    @abstractmethod
    def restored(cls, folder: Path, values: dict[str, Any]) -> "Decoder":
        """The decoder that `save` wrote."""
