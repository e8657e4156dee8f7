"""What a case of reference numbers is compared by."""

from collections.abc import Callable, Mapping
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
        return self._largest(torch.ones(()))

    @property
    def relative(self) -> float:
        """max |got − want| / max |want| (elementwise: max of |got − want| / |want|)."""
        size = self.want.double().abs()
        scale = size.max() if self.measure != "elementwise" and size.numel() else size
        return self._largest(scale.clamp_min(self.floor))

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

    def _largest(self, scale: Tensor) -> float:
        """max |got − want| / scale, 0 where there is nothing to compare."""
        if self.got.shape != self.want.shape:
            return float("inf")
        error = (self.got.detach().double() - self.want.double()).abs()
        same = (self.got == self.want) | (self.got.isnan() & self.want.isnan())
        error = torch.where(same, 0.0, error.nan_to_num(nan=float("inf")))
        return torch.where(error == 0, 0.0, error / scale).max().item() if error.numel() else 0.0


def exact(name: str, got: Tensor, want: Tensor) -> Check:
    """A check of integers or booleans, which must be equal."""
    return Check(name, got, want, 0.0, "exact")


def known(
    found: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    tolerance: float,
    measure: str = "relative",
    of: str = "out.",
) -> list[Check]:
    """Checks of what was found under names of which the case has a reference, "out.NAME"."""
    named = ((name, got, tensors.get(of + name)) for name, got in found.items())
    return [Check(name, got, want, tolerance, measure) for name, got, want in named if want is not None]


def renamed(config: Mapping, names: Mapping[str, str]) -> dict:
    """Options from a case's configuration, by {this project's name: the reference's}; what the case leaves out is left out."""
    return {ours: config[theirs] for ours, theirs in names.items() if theirs in config}


@dataclass(frozen=True)
class Kind:
    """A kind of case: recognised by the beginning of its name, or else by tensors that only this kind has.

    run(tensors, config) → checks, with tensors {"state.…", "in.…", "out.…", "aux64.…"} and the .json's `config`.
    """

    prefix: str
    marks: frozenset
    run: Callable[[dict[str, Tensor], dict], list[Check]]
