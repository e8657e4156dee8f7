"""What a case of reference numbers is compared by."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Check:
    """One tensor against its reference.

    measure: "relative" (error over the reference's largest magnitude), "elementwise" (error over each element's own
    magnitude), "absolute", or "exact" (equal, tolerance 0). floor: a relative error is taken over this at least, where the
    reference is a difference of larger numbers, and may be 0 up to their rounding.
    """

    name: str
    got: Tensor
    want: Tensor
    tolerance: float
    measure: str = "relative"
    floor: float = 0.0

    @property
    def absolute(self) -> float:
        """max |got − want|; inf where the shapes differ or a value is not finite."""
        return self._error().max().item() if self._comparable() and self.want.numel() else self._degenerate()

    @property
    def relative(self) -> float:
        """max |got − want| / max |want| (elementwise: max of |got − want| / |want|)."""
        if not self._comparable() or not self.want.numel():
            return self._degenerate()
        error, scale = self._error(), self.want.double().abs()
        scale = (scale if self.measure == "elementwise" else scale.max()).clamp_min(self.floor)
        return torch.where(error == 0, 0.0, error / scale).max().item()

    @property
    def error(self) -> float:
        """The error that the tolerance is about."""
        return self.relative if self.measure in ("relative", "elementwise") else self.absolute

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance

    @property
    def closeness(self) -> float:
        """The error in tolerances: above 1 the check fails."""
        if self.error == 0:
            return 0.0
        return self.error / self.tolerance if self.tolerance else float("inf")

    def _comparable(self) -> bool:
        return self.got.shape == self.want.shape

    def _degenerate(self) -> float:
        return 0.0 if self._comparable() else float("inf")

    def _error(self) -> Tensor:
        error = (self.got.detach().double() - self.want.double()).abs()
        same = (self.got == self.want) | (self.got.isnan() & self.want.isnan())
        return torch.where(same, 0.0, error.nan_to_num(nan=float("inf")))


def close(
    name: str, got: Tensor, want: Tensor, tolerance: float, measure: str = "relative", floor: float = 0.0
) -> Check:
    """A check within a tolerance."""
    return Check(name, got, want, tolerance, measure, floor)


def exact(name: str, got: Tensor, want: Tensor) -> Check:
    """A check of integers or booleans, which must be equal."""
    return Check(name, got, want, 0.0, "exact")


@dataclass(frozen=True)
class Kind:
    """A kind of case: recognised by the beginning of its name, or else by tensors that only this kind has.

    run(tensors, config) → checks, with tensors {"state.…", "in.…", "out.…", "aux64.…"} and the .json's `config`.
    """

    prefix: str
    marks: frozenset
    run: Callable[[dict[str, Tensor], dict], list[Check]]


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` (as "state."), without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
