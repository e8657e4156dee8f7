"""Networks while samples are made: their calls are counted, their predictions tempered, and a sampler's own teacher is lent to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from di4c.contracts.backbone import Backbone
from di4c.contracts.head import StudentHead
from di4c.contracts.prediction import Denoiser, Prediction
from di4c.contracts.teacher import Teacher
from di4c.contracts.tempering import Tempering
from di4c.draws import Draws

_SAMPLING: ContextVar[tuple[list[int], Tempering | None] | None] = ContextVar("sampling", default=None)


@contextmanager
def sampling(tempering: Tempering | None = None) -> Iterator[list[int]]:
    """Inside, every call of an `observed` denoiser or a lent teacher adds its rows to the list, and its prediction is tempered.

    A doubled batch counts twice.
    """
    rows: list[int] = []
    token = _SAMPLING.set((rows, tempering))
    try:
        yield rows
    finally:
        _SAMPLING.reset(token)


def observed(denoiser: Denoiser) -> Denoiser:
    """The denoiser, its calls counted and its predictions tempered where they are made inside `sampling`."""

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        inside = _SAMPLING.get()
        if inside is None:
            return denoiser(x_t, t, cond)
        rows, tempering = inside
        rows.append(len(x_t))
        return denoiser(x_t, t, cond).tempered(tempering)

    return denoise


class LentTeacher(Teacher):
    """Another teacher in all that it can be asked, loaded no earlier: most samplers that may use one do not."""

    def __init__(self, load: Callable[[], Teacher]):
        self._load = load

    @classmethod
    def of(cls, teacher: Teacher) -> "LentTeacher":
        """The teacher, lent; one that is so already, as it is."""
        return teacher if isinstance(teacher, LentTeacher) else cls(lambda: teacher)

    @cached_property
    def loaded(self) -> Teacher:
        """The teacher itself."""
        return self._load()

    def __getattr__(self, name: str) -> Any:
        """process, parameterisation, backbone, num_positions, and whatever a plugin's teacher has besides."""
        if name.startswith("__") or name in ("_load", "loaded"):
            raise AttributeError(name)
        return getattr(self.loaded, name)

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        return observed(self.loaded.predict)(x_t, t, cond)

    def denoiser(self, draws: Draws) -> Denoiser:
        made: list[Denoiser] = []

        def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
            if not made:
                made.append(self.loaded.denoiser(draws))
            return made[0](x_t, t, cond)

        return observed(denoise)

    def components(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        return observed(self.loaded.components)(x_t, t, cond)

    @property
    def network(self) -> nn.Module:
        return self.loaded.network

    def student_backbone(self) -> Backbone:
        return self.loaded.student_backbone()

    def warm_start(self, head: StudentHead) -> None:
        self.loaded.warm_start(head)

    def to(self, device: torch.device | str) -> "LentTeacher":
        self.loaded.to(device)
        return self

    def freeze(self) -> "LentTeacher":
        self.loaded.freeze()
        return self

    def portable_entry(self, entry: dict) -> dict:
        return self.loaded.portable_entry(entry)
