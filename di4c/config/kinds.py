"""The kinds of parts, in one table, and how an entry names one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from di4c.errors import SpecError


@dataclass(frozen=True)
class Kind:
    """A kind of parts.

    name: in registry.yaml, plugins' declarations and groups of entry points. key: what one of it is called. contract: what
    its classes extend, of di4c.contracts. places: where a spec names one. provided: the values that its constructors may ask
    for. options: under which another part names one, which is then created first.
    """

    name: str
    key: str
    contract: str
    places: tuple[str, ...]
    provided: frozenset[str] = frozenset()
    options: tuple[str, ...] = ()


MADE_OF_A_STUDENT = frozenset({"student", "latent"})
"""The parameters by which a teacher's constructor says that it is made of a distilled student."""

_SIZES = frozenset({"num_positions", "num_states", "num_classes"})
_HANDED_ON = _SIZES | {"process", "data", "data_states"}
"""What a part inside another one may ask for, as far as that one is given it."""

_KINDS = (
    Kind("teachers", "teacher", "Teacher", ("teacher",), _SIZES | {"process", "data", "weights"} | MADE_OF_A_STUDENT, ("teacher",)),
    Kind("backbones", "backbone", "Backbone", ("teacher.backbone",), _HANDED_ON | {"weights"}, ("backbone",)),
    Kind("processes", "process", "ForwardProcess", ("process",), frozenset({"data_states"}), ("process",)),
    Kind("parameterisations", "parameterisation", "Parameterisation", ("teacher.parameterisation",), _HANDED_ON, ("parameterisation",)),
    Kind("student_heads", "head", "StudentHead", ("student.head",), frozenset({"latent_dim", "backbone", "num_positions"}), ("head",)),
    Kind("lambda_samplers", "latent", "LambdaSampler", ("latent",), options=("latent",)),
    Kind("posteriors", "posterior", "Posterior", ("objective.proposal.posterior",),
         frozenset({"latent", "process", "teacher", "num_positions", "num_classes"}), ("posterior",)),
    Kind("loss_estimators", "estimator", "LossEstimator", ("objective.data.estimator", "objective.consistency.estimator"),
         _HANDED_ON, ("estimator",)),
    Kind("samplers", "sampler", "Sampler", ("objective.sampler", "eval.sampler"), frozenset({"process", "teacher"}), ("sampler",)),
    Kind("metrics", "metric", "Metric", ("eval.metrics",), frozenset({"data", "process", "judge"})),
    Kind("datasets", "dataset", "DataSource", ("data",), options=("dataset",)),
    Kind("tokenizers", "tokenizer", "ImageTokenizer", ("objective.tokenizer", "data.tokenizer"), _HANDED_ON, ("tokenizer",)),
    Kind("objectives", "objective", "Objective", ("objective",), _SIZES | {"process", "teacher", "student", "latent", "open_split"}),
    Kind("time_samplers", "time", "TimeSampler", ("objective.time", "objective.distillation_time"),
         _HANDED_ON, ("time", "distillation_time", "noise_time")),
    Kind("pipelines", "pipeline", "Pipeline", ("pipeline",)),
)  # fmt: skip

KINDS = {kind.name: kind for kind in _KINDS}
"""Every kind of part by its name."""

NESTED = {option: kind.name for kind in KINDS.values() for option in kind.options}
"""The kinds of the options that name a part of their own."""

SECTIONS = {
    key: next(kind.name for kind in KINDS.values() if key in kind.places)
    for key in ("data", "process", "teacher", "latent", "objective", "pipeline")
}
"""The sections that are one entry, in the order of building, with their kinds."""


def split_entry(entry: str | Mapping, where: str) -> tuple[str, dict[str, Any]]:
    """(name, options) of {"name": name, **options} or of a bare name."""
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, Mapping):
        raise SpecError(f"{where}: expected a name or a mapping with 'name', found {entry!r}.")
    options = {str(option): value for option, value in entry.items()}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise SpecError(f"{where}.name: expected a string, found {name!r}.")
    return name, options


def full_entry(entry: str | Mapping, where: str) -> dict[str, Any]:
    """The entry as a mapping whose first key is `name`."""
    name, options = split_entry(entry, where)
    return {"name": name, **options}
