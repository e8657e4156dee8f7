"""{"name": …, **options} → an object, the options matched to the constructor's parameters."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from di4c.config.annotations import hints_of
from di4c.config.coerce import coerce
from di4c.config.kinds import KINDS, NESTED, split_entry
from di4c.config.registry import Registry
from di4c.config.suggest import suggestion
from di4c.errors import Di4CError, RegistryError, SpecError

IMPOSSIBLE = (ValueError, ArithmeticError, RuntimeError, MemoryError)
"""What libraries raise of numbers that cannot be. TypeError, AttributeError and the like are faults of a part's code, and keep their trace."""


@dataclass(frozen=True)
class Construction:
    """A constructor with its checked options; `nested` are the parts among them, `parameters` what it can be given."""

    factory: Any
    options: dict[str, Any]
    nested: dict[str, "Construction"]
    parameters: frozenset
    where: str

    def build(self, provided: Mapping[str, Any], inside: Mapping[str, Any] | None = None) -> Any:
        """Calls the constructors, innermost first; their Di4CErrors are told with the key path.

        inside: what the parts among the options are provided with, if it is something else. Numbers that a library cannot take (a negative width, a probability of 2) are SpecErrors that list the options.
        """
        inside = provided if inside is None else inside
        return self.made(provided, {key: construction.build(inside) for key, construction in self.nested.items()})

    def made(self, provided: Mapping[str, Any], parts: Mapping[str, Any]) -> Any:
        """As `build`, the parts among the options being made already."""
        given = {key: value for key, value in provided.items() if key in self.parameters}
        try:
            return self.factory(**{**given, **self.options, **parts})
        except Di4CError as error:
            told = str(error)
            raise type(error)(told if told.startswith(self.where) else f"{self.where}: {told}") from error
        except IMPOSSIBLE as error:
            options = ", ".join(f"{key} {value!r}" for key, value in self.options.items()) or "no options"
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            raise SpecError(
                f"{self.where}: {getattr(self.factory, '__name__', 'it')} cannot be made with {options[:200]} ({told})"
            ) from error


def create(
    registry: Registry,
    kind: str,
    entry: str | Mapping,
    provided: Mapping[str, Any] | None = None,
    where: str = "",
    inside: Mapping[str, Any] | None = None,
) -> Any:
    """The object of {"name": …, **options}, or of a bare name.

    Options that name parts themselves (backbone: {name: dit}) are created first. Of `provided`, a constructor gets
    what it has parameters for; an option of the entry goes before a provided value. inside: as in `Construction.build`.

    Raises RegistryError for unknown names and keys and missing keys, SpecError for values of a wrong type.
    """
    provided = dict(provided or {})
    return plan(registry, kind, entry, provided, where).build(provided, inside)


def plan(
    registry: Registry, kind: str, entry: str | Mapping, provided: Iterable[str] = (), where: str = ""
) -> Construction:
    """How `create` would build the entry, every option checked and coerced; imports, but calls no constructor.

    provided: the names of the values that will be given besides.
    """
    where = where or kind
    name, options = split_entry(entry, where)
    try:
        factory = registry.resolve(kind, name)
    except RegistryError as error:
        raise RegistryError(f"{where}: {error}") from error.__cause__
    told = f"{where}: {name!r} ({registry.find(kind, name).told})"
    _check_contract(kind, factory, told)
    options = _completed(factory, name, options)
    return _plan_call(registry, factory, options, set(provided), where, told, takes_provided=True)


def _check_contract(kind: str, factory: Any, told: str) -> None:
    """Raises RegistryError if a class is of another kind; what a function makes is its own matter."""
    if not isinstance(factory, type) or issubclass(factory, contract_of(kind)):
        return
    bases = [known.contract for known in KINDS.values() if issubclass(factory, contract_of(known.name))]
    wanted = KINDS[kind].contract
    raise RegistryError(
        f"{told} is {f'a {bases[0]}' if bases else 'an ordinary class'}, not a {wanted}: "
        f"what is named here extends di4c.contracts.{wanted}."
    )


def contract_of(kind: str) -> type:
    """The class that those of a kind extend."""
    from di4c import contracts  # imports torch, as parts do, and names alone need not

    return getattr(contracts, KINDS[kind].contract)


def _completed(factory: Any, name: str, options: dict) -> dict:
    """The options, completed by a class that fills in what its entry points to (Teacher.resolved_entry)."""
    complete = getattr(factory, "resolved_entry", None)
    if complete is None:
        return options
    return {key: value for key, value in complete({"name": name, **options}).items() if key != "name"}


def _plan_call(
    registry: Registry, factory: Any, options: Mapping, provided: set, where: str, told: str, takes_provided: bool
) -> Construction:
    """The construction of a class; dataclasses among its options are planned alike, but get no provided values."""
    parameters = _parameters(factory)
    own = provided if takes_provided else set()
    _check_keys(options, parameters, own, told)
    hints = hints_of(factory)
    plain, nested = {}, {}
    for key, value in options.items():
        annotation, path = hints.get(key, Any), f"{where}.{key}"
        inner = _dataclass_of(annotation) if isinstance(value, Mapping) else None
        if _is_part(key, value, annotation):
            nested[key] = plan(registry, NESTED[key], value, provided, path)
        elif inner is not None:
            construction = _plan_call(registry, inner, value, provided, path, f"{path} ({inner.__name__})", False)
            if construction.nested:
                nested[key] = construction
            else:  # built now, so that a check without training hears what __post_init__ says
                plain[key] = construction.build({})
        elif key in NESTED and _needs_part(NESTED[key], value, annotation):
            raise SpecError(f"{path}: expected a name or a mapping with 'name', found {value!r}.")
        else:
            plain[key] = coerce(value, annotation, path)
    return Construction(factory, plain, nested, frozenset(parameters) & own, where)


def _dataclass_of(annotation: Any) -> type | None:
    """The dataclass that an annotation is, or holds beside None."""
    arms = arms_of(annotation)
    return arms[0] if len(arms) == 1 and isinstance(arms[0], type) and dataclasses.is_dataclass(arms[0]) else None


def _is_part(key: str, value: Any, annotation: Any) -> bool:
    """Whether an option names a part: a mapping with a name, or a bare name where no string is asked for.

    A mapping without a name counts where a part is asked for, so that it is told.
    """
    if key not in NESTED:
        return False
    if isinstance(value, Mapping):
        return "name" in value or _asks_for(NESTED[key], annotation)
    takes_text = any(a is str or typing.get_origin(a) is typing.Literal for a in arms_of(annotation))
    return isinstance(value, str) and not takes_text


def _asks_for(kind: str, annotation: Any) -> bool:
    """Whether an annotation is the contract of a kind."""
    return any(isinstance(arm, type) and issubclass(arm, contract_of(kind)) for arm in arms_of(annotation))


def _needs_part(kind: str, value: Any, annotation: Any) -> bool:
    """Whether a value that names no part stands where nothing but a part can."""
    if value is None and type(None) in typing.get_args(annotation):
        return False
    contract = contract_of(kind)
    return not isinstance(value, contract) and all(
        isinstance(arm, type) and issubclass(arm, contract) for arm in arms_of(annotation)
    )


def arms_of(annotation: Any) -> tuple:
    """The alternatives of a union, None left out; else the annotation alone."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return tuple(a for a in (typing.get_args(annotation) if union else (annotation,)) if a is not type(None))


def _parameters(factory: Any) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by keyword; "**" stands for any other."""
    every = inspect.signature(factory).parameters.items()
    given = {key: p for key, p in every if p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)}
    return {"**" if p.kind is p.VAR_KEYWORD else key: p for key, p in given.items()}


def _check_keys(options: Mapping, parameters: Mapping, provided: set[str], told: str) -> None:
    """Raises RegistryError for keys the constructor does not take, and for keys it misses."""
    own = {key: p for key, p in parameters.items() if key != "**" and key not in provided}
    listing = [f"{key}{' (required)' if p.default is inspect.Parameter.empty else ''}" for key, p in own.items()]
    allowed = f" Allowed: {', '.join(listing) or 'no options'}."
    for key in options:
        if key not in parameters and "**" not in parameters:
            near = suggestion(key, own).partition(" Known")[0]
            raise RegistryError(f"{told} has no option {key!r}.{near}{allowed}")
    missing = [k for k, p in own.items() if p.default is inspect.Parameter.empty and k not in options]
    if missing:
        raise RegistryError(f"{told} misses {', '.join(map(repr, missing))}.{allowed}")
