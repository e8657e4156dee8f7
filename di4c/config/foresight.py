"""What the constructors of a spec's parts will say, told before data, networks and files are there."""

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import torch

from di4c.config.construct import Construction
from di4c.config.kinds import NESTED
from di4c.errors import Di4CError

READ = frozenset({"teachers", "datasets", "tokenizers", "metrics"})
"""The kinds whose constructors may read files: only the parts among their options are tried."""

NETWORKS = frozenset({"backbones", "student_heads", "posteriors"})
"""The kinds that are made without memory of their own."""

STATES = (2, 16, 256)
"""Numbers of states to try a process with: what others ask of it (whether it has a mask, jump rates, …) does not depend on them."""


class NotYet(Exception):
    """A constructor looked at what is not there yet."""


class Absent:
    """Stands for what is not there yet: it can be kept, and of what it is only `known` can be looked at.

    Its class neither: torch alone, which asks it of all that a module keeps, is told.
    """

    def __init__(self, **known: Any):
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        raise NotYet(name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        if sys._getframe(1).f_globals["__name__"].partition(".")[0] != "torch":
            raise NotYet("__class__")
        return Absent

    def _looked_at(self, *others: Any) -> Any:
        raise NotYet

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _looked_at
    __int__ = __index__ = __float__ = __len__ = __iter__ = __getitem__ = __call__ = _looked_at
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __floordiv__ = __truediv__ = __pow__ = (
        _looked_at
    )
    __hash__ = object.__hash__


def foresee(planned: Mapping[str, Construction], kinds: Mapping[str, str]) -> None:
    """Raises what the constructors of {key path: construction} would, up to where they look at data or networks; kinds: their kinds."""
    with torch.random.fork_rng(devices=[]):
        process = _process(planned["process"]) if "process" in planned else Absent()
        latent = planned["latent"].build({}) if "latent" in planned else Absent()
        provided = {
            **dict.fromkeys(("num_positions", "num_states", "num_classes", "data", "backbone", "student", "open_split"), Absent()),
            "weights": False, "process": process, "latent": latent, "teacher": Absent(process=process),
            "latent_dim": Absent() if isinstance(latent, Absent) else latent.dim,
        }  # fmt: skip
        for where, construction in planned.items():
            if where not in ("process", "latent"):
                tried(kinds[where], construction, provided)


def tried(kind: str | None, construction: Construction, provided: Mapping[str, Any]) -> Any:
    """The part, or an Absent where it cannot be made yet. Raises what its constructor says of its options."""
    parts = {key: tried(NESTED.get(key), inner, provided) for key, inner in construction.nested.items()}
    if kind in READ:
        return Absent()
    given = [*parts.values(), *(provided[key] for key in construction.parameters & set(provided))]
    try:
        with torch.device("meta") if kind in NETWORKS else contextlib.nullcontext():
            return construction.made(provided, parts)
    except Exception as error:  # an Absent can lead to any kind
        own = isinstance(error, Di4CError) and isinstance(error.__cause__, Di4CError) and not _of_the_absent(error)
        if own and "num_classes" in construction.parameters and provided.get("num_classes") is not None:
            return tried(kind, construction, {**provided, "num_classes": None})  # the data may have no labels
        if own or not any(isinstance(value, Absent) for value in given):
            raise
        return Absent()


def _of_the_absent(error: BaseException | None) -> bool:
    """Whether an error was raised of NotYet, at whatever remove."""
    while error is not None and not isinstance(error, NotYet):
        error = error.__cause__ or error.__context__
    return error is not None


def _process(construction: Construction) -> Any:
    """The process on some number of states, or an Absent; what it says of its options is raised before it is given any."""
    made = tried("processes", construction, {"data_states": Absent()})
    for states in STATES:
        if isinstance(made, Absent):
            with contextlib.suppress(Di4CError):  # a process may ask for other numbers
                made = construction.build({"data_states": states})
    return made
