"""Random numbers keyed by what they are for, so that they do not depend on ranks, splitting or resumption.

A `Draws` names a stream by (seed, path) and holds a contiguous range of global example indices. Row i of every
draw depends on the key and on the example's index alone: two ranks that hold examples 0–3 and 4–7 draw together
exactly what one rank that holds 0–7 draws. The bits come from numpy's counter-based Philox-4x64 generator.
"""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from di4c.whole import whole_number

_WORDS_PER_COUNT = 4  # one Philox-4x64 counter gives four 64-bit words


@dataclass
class Draws:
    """A keyed stream of random numbers for the examples first, …, first + count − 1.

    Each call on the same object gives fresh numbers; `child(name)` opens an independent stream, whose numbers do
    not depend on how often the parent was called.
    """

    seed: int
    first: int = 0
    count: int = 1
    path: tuple = ()
    device: torch.device | str = "cpu"
    _calls: int = field(default=0, repr=False)

    def __post_init__(self):
        """An integer of numpy or torch names the same stream as the int that it equals."""
        self.seed = whole_number(self.seed, "seed")
        if not all(type(name) in (str, int) for name in self.path):
            self.path = tuple(name if isinstance(name, str) else whole_number(name, "draws") for name in self.path)

    @classmethod
    def from_generator(cls, generator: torch.Generator | None, count: int, device="cpu") -> "Draws":
        """Draws seeded by one number of `generator` (torch's global generator if None)."""
        device_of_seed = generator.device if generator is not None else "cpu"
        seed = torch.randint(2**62, (), generator=generator, device=device_of_seed)
        return cls(int(seed), count=count, device=device)

    def child(self, *names: str | int) -> "Draws":
        """The independent stream of the same examples for another purpose, e.g. child("x_t") or child("step", 3)."""
        return Draws(self.seed, self.first, self.count, self.path + names, self.device)

    def repeat(self, n: int) -> "Draws":
        """n sub-examples an example, b major: the stream of [B·n] rows; rank-independent as well."""
        return Draws(self.seed, self.first * n, self.count * n, (*self.path, "repeat", n), self.device)

    def rows(self, start: int, stop: int) -> "Draws":
        """The stream of the examples start, …, stop − 1 of this one (a micro-batch)."""
        return Draws(self.seed, self.first + start, stop - start, self.path, self.device)

    def uniform(self, *shape: int) -> Tensor:
        """U[0, 1) with 53 random bits: [B, *shape], float64."""
        size = math.prod(shape)
        stride = -(-max(size, 1) // _WORDS_PER_COUNT) * _WORDS_PER_COUNT
        stream = np.random.Philox(key=self._key())
        stream.advance(self.first * stride // _WORDS_PER_COUNT)
        values = np.random.Generator(stream).random(self.count * stride).reshape(self.count, stride)[:, :size]
        return self._to_device(np.ascontiguousarray(values)).reshape(self.count, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal by the inverse distribution function: [B, *shape], float64."""
        return torch.special.ndtri(self.uniform(*shape).clamp_min(2.0**-54))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform on {0, …, high − 1}: [B, *shape], int64."""
        return (self.uniform(*shape) * high).long().clamp_max(high - 1)

    def permutation(self, n: int) -> Tensor:
        """A uniform permutation of {0, …, n − 1} an example: [B, n], int64."""
        return self.uniform(n).argsort(dim=-1)

    def scalar(self) -> float:
        """One U[0, 1) that all examples, and so all ranks, share: a branch may depend on it."""
        return float(np.random.Generator(np.random.Philox(key=self._key())).random())

    def _key(self) -> int:
        name = repr((self.seed, self.path, self._calls)).encode()
        self._calls += 1
        return int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")

    def _to_device(self, values: np.ndarray) -> Tensor:
        return placed(torch.from_numpy(values), self.device)


def placed(values: Tensor, device: torch.device | str) -> Tensor:
    """The values on the device; from pinned memory to a GPU, so that the host does not wait for what runs there."""
    if values.device.type != "cpu" or torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def cumulated(masses: Tensor) -> Tensor:
    """Cumulative sums along the last dimension of masses ≥ 0; as deterministic as torch is told to be.

    torch's own sums refuse on CUDA then, and these double the length of what is added: log₂ n passes.
    """
    deterministic = masses.device.type == "cuda" and torch.are_deterministic_algorithms_enabled()
    return _by_doubling(masses) if deterministic else masses.cumsum(-1)


def _by_doubling(masses: Tensor) -> Tensor:
    sums, length = masses, 1
    while length < masses.shape[-1]:
        sums = torch.cat([sums[..., :length], sums[..., length:] + sums[..., :-length]], dim=-1)
        length *= 2
    # sums of other orders: a mass of 0 must not add a rounding
    return torch.where(masses > 0, sums, 0.0).cummax(-1).values


def categorical(probs: Tensor, uniform: Tensor, block: int = 256) -> Tensor:
    """Exact categorical draws by inversion: x with P(x = s) ∝ probs[…, s]; int64, shape of `uniform`.

    probs: [..., S], non-negative, need not be normalised; uniform: [...] or [..., N] float64 in [0, 1) (N draws of
    each distribution). Cumulative sums are float64 (over blocks of states for large S, so that no float64 [..., S] exists),
    hence small probabilities are not truncated as float32 Gumbel noise does (arXiv 2409.02908). A state of mass 0 is never drawn.
    """
    many = uniform.dim() == probs.dim()
    u = uniform if many else uniform.unsqueeze(-1)
    if probs.shape[-1] <= 2 * block:
        cumulative = cumulated(probs.double())
        index = _invert(cumulative, u)
    else:
        index = _invert_blockwise(probs, u, block)
    return index if many else index.squeeze(-1)


def _invert(cumulative: Tensor, u: Tensor) -> Tensor:
    """The first index whose cumulative mass exceeds u times the total: [..., N]."""
    total = cumulative[..., -1:]
    level = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative.contiguous(), level.contiguous(), right=True).clamp_max(
        cumulative.shape[-1] - 1
    )


def _invert_blockwise(probs: Tensor, u: Tensor, block: int) -> Tensor:
    """`_invert` in two levels: choose a block of states by its mass, then a state inside it. No copy of probs is made."""
    states = probs.shape[-1]
    whole = states - states % block
    mass = probs[..., :whole].unflatten(-1, (-1, block)).sum(-1)
    if whole < states:
        mass = torch.cat([mass, probs[..., whole:].sum(-1, keepdim=True)], -1)
    mass = mass.double()
    cumulative = cumulated(mass)
    chosen = _invert(cumulative, u)
    total = cumulative[..., -1:]
    below = torch.where(chosen > 0, cumulative.gather(-1, (chosen - 1).clamp_min(0)), torch.zeros_like(u))
    inside = ((u * total - below) / mass.gather(-1, chosen)).clamp(0, 1)
    index = chosen.unsqueeze(-1) * block + torch.arange(block, device=probs.device)
    members = probs.gather(-1, index.clamp_max(states - 1).flatten(-2)).view_as(index)
    rows = cumulated(torch.where(index < states, members, 0.0).double())
    return chosen * block + _invert(rows, inside.unsqueeze(-1)).squeeze(-1)
