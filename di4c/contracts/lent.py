"""Networks while samples are made: their calls are counted and looked at, their predictions tempered, and a sampler's own teacher is
lent to it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from di4c.contracts.prediction import Denoiser, Prediction
from di4c.contracts.teacher import Teacher
from di4c.contracts.tempering import Tempering
from di4c.draws import Draws


@dataclass
class NetworkCalls:
    """The calls of networks: their rows, of which a doubled batch has twice as many, and whether all that they said were numbers.

    numbers: a bool on the networks' device, so that nothing waits for it; None before the first call.
    """

    rows: int = 0
    numbers: Tensor | None = None

    def add(self, prediction: Prediction, rows: int) -> None:
        """Counts a call. A logit may be −∞, a state that cannot be; NaN and +∞ are no numbers."""
        numbers = (prediction.features < math.inf).all()
        self.rows += rows
        self.numbers = numbers if self.numbers is None else self.numbers & numbers


_SAMPLING: ContextVar[tuple[NetworkCalls, Tempering | None] | None] = ContextVar("sampling", default=None)


@contextmanager
def sampling(tempering: Tempering | None = None) -> Iterator[NetworkCalls]:
    """Inside, every call of an `observed` denoiser or a lent teacher is added to the NetworkCalls, and its prediction is tempered."""
    calls = NetworkCalls()
    token = _SAMPLING.set((calls, tempering))
    try:
        yield calls
    finally:
        _SAMPLING.reset(token)


def observed(denoiser: Denoiser) -> Denoiser:
    """The denoiser, its calls added up and its predictions tempered where they are made inside `sampling`."""

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        inside = _SAMPLING.get()
        if inside is None:
            return denoiser(x_t, t, cond)
        calls, tempering = inside
        prediction = denoiser(x_t, t, cond)
        calls.add(prediction, len(x_t))
        return prediction.tempered(tempering)

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
