"""A digest of a part with all its options and weights: what results that depend on it are kept under."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from di4c.contracts.lent import LentTeacher
from di4c.contracts.teacher import Teacher

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype)


def fingerprint(*values: Any) -> str:
    """The digest of parts, numbers, texts, tensors and collections of them, in hex; the same in every process.

    Of an object it sees the class and the public attributes, all the way down (options, schedules, inner samplers); of a module
    also its tensors; of a teacher its whole network, a λ head included. What begins with an underscore is taken for derived.
    """
    digest = hashlib.sha256()
    for piece in _pieces(values, {}):
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()


def lent_teachers(part: Any) -> list[Teacher]:
    """The teachers that a sampler holds, itself or in an inner part, in order of their attributes."""
    found, seen = [], {}

    def look(value: Any) -> None:
        if id(value) in seen or isinstance(value, (*PLAIN, Tensor, nn.Module, type)):
            return
        seen[id(value)] = value
        if isinstance(value, Teacher):
            found.append(value)
        elif isinstance(value, Mapping):
            for inner in value.values():
                look(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                look(inner)
        else:
            for _, inner in _attributes(value):
                look(inner)

    look(part)
    return found


def _pieces(value: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """What the digest is made of; `seen` holds the objects on the way, by identity, against cycles."""
    if isinstance(value, LentTeacher):
        value = value.loaded
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    if isinstance(value, PLAIN):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
        yield memoryview(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        yield b"mapping"
        for key in sorted(value, key=repr):
            yield from _pieces((key, value[key]), seen)
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)}".encode()
        for item in value:
            yield from _pieces(item, seen)
    elif id(value) in seen:
        yield b"seen"
    else:
        yield from _pieces_of_object(value, {**seen, id(value): value})


def _pieces_of_object(value: Any, seen: dict[int, Any]) -> Iterator[Any]:
    named = value if hasattr(value, "__qualname__") else type(value)  # functions and classes are their names
    yield f"{named.__module__}:{named.__qualname__}".encode()
    if isinstance(value, nn.Module):
        for name, module in value.named_modules():
            plain = {key: inner for key, inner in _attributes(module) if isinstance(inner, PLAIN) and key != "training"}
            yield from _pieces((name, type(module).__qualname__, plain), seen)
        yield from _pieces(value.state_dict(), seen)
        return
    if isinstance(value, Teacher):
        yield from _pieces(value.network, seen)
    for pair in _attributes(value):
        yield from _pieces(pair, seen)


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """(name, value) of what an object was given: public, and no result that a property keeps."""
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return []
    kept = {name for name in vars(value) if isinstance(getattr(type(value), name, None), cached_property)}
    shown = {name: inner for name, inner in vars(value).items() if not name.startswith("_") and name not in kept}
    return [(name, shown[name]) for name in sorted(shown)]
