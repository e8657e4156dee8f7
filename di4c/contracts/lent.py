"""Networks while samples are made: their calls are counted, their predictions tempered, and a sampler's own teacher is lent to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from torch import Tensor

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


LENT = {"_load", "loaded", "of", "predict", "denoiser", "components", "to", "freeze"}
"""What of a LentTeacher is its own."""


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
        return self._load()

    def __getattribute__(self, name: str) -> Any:
        """Whatever the teacher has, a plugin's own attributes too, but for what LENT names."""
        if name in LENT or name.startswith("__"):
            return super().__getattribute__(name)
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
