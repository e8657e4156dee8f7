"""spec.yaml → a validated Spec of plain values. Imports neither torch nor any part.

Paths in a spec (train.run, teacher.run, data.path) start at the current directory; files under `plugins:` at the spec's
folder.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from di4c.config.coerce import from_mapping
from di4c.config.eval_spec import EvalSpec
from di4c.config.kinds import NESTED, SECTIONS, full_entry
from di4c.config.overrides import overridden
from di4c.config.plugin_modules import is_file
from di4c.config.registry import Registry
from di4c.config.shipped import spec_path
from di4c.engine.deepspeed_config import check_section
from di4c.engine.options import TrainOptions
from di4c.errors import RegistryError, SpecError, located
from di4c.files import replace_file
from di4c.old_keys import renamed
from di4c.paths import real_path, user_path
from di4c.yaml_text import dump, escaped, plain, read_yaml, resolved

Entry = dict
"""{"name": …, **options}: a part by its registry name, with its constructor's options."""

REQUIRED = {
    "pretrain": ("data", "process", "teacher"),
    "distill": ("data", "process", "teacher", "student", "latent"),
    "tokenizer": ("data", "objective"),
}
DEFAULT_OBJECTIVE = {"pretrain": "nelbo", "distill": "di4c"}

CHANGEABLE = ("eval", "data")
"""Sections that may differ when a trained model is used."""


@dataclass(frozen=True)
class LoraSpec:
    """Low-rank adapters of `rank`, scaled by alpha/rank, on the linear layers whose names end in one of `targets`."""

    rank: int
    targets: list[str]
    alpha: float
    dropout: float = 0.0

    def __post_init__(self):
        if self.rank < 1 or not self.targets or not 0 <= self.dropout < 1:
            raise SpecError("student.lora: rank ≥ 1, at least one of targets, and dropout in [0, 1) are needed")


@dataclass(frozen=True)
class StartSpec:
    """What a student starts from. run: the folder of a distillation run (its export), or an export."""

    run: str


@dataclass(frozen=True)
class StudentSpec:
    """How λ enters the student: the entry of a student head. The backbone is the teacher's.

    start: a trained student of the same process, λ sampler and architecture, whose weights this one starts from. lora: teacher and
    student share one frozen copy of the teacher's weights, and adapters make the student of it; without, the student is a copy of its own.
    """

    head: Any
    lora: LoraSpec | None = None
    start: StartSpec | None = None


@dataclass(frozen=True)
class Spec:
    """A whole run. `source` says where it was read, for messages."""

    task: Literal["pretrain", "distill", "tokenizer"]
    seed: int
    train: TrainOptions
    data: Any = None
    process: Any = None
    teacher: Any = None
    student: StudentSpec | None = None
    latent: Any = None
    objective: Any = None
    eval: EvalSpec | None = None
    pipeline: Any = None
    plugins: list[str] = field(default_factory=list)
    deepspeed: dict[str, Any] = field(default_factory=dict)
    source: str = field(default="spec", compare=False, metadata={"spec": False})

    def __post_init__(self):
        if self.seed < 0:
            raise SpecError(f"seed: expected a whole number ≥ 0, found {self.seed}.")

    @classmethod
    def from_dict(cls, values: Mapping, source: str = "spec", folder: Path | None = None) -> "Spec":
        """The validated spec of plain values; `folder` is where relative plugin files start (the current directory).

        Raises SpecError or RegistryError with `source`, the key path, what was found and what is allowed.
        """
        with located(source):
            spec = from_mapping(cls, renamed(plain(values), source), "")
            spec = dataclasses.replace(_normalised(spec, folder or Path.cwd()), source=str(source))
            check_section(spec.deepspeed)
            _check_names(spec, Registry.default(spec.plugins))
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` turns into the same spec; sections that are absent are left out."""
        values = plain(dataclasses.asdict(self))
        return {key: value for key, value in values.items() if value is not None and key != "source"}


def read_spec(path: str | Path, overrides: Iterable[str] = ()) -> Spec:
    """The spec of a YAML file, or of a shipped one by its name, with overrides "a.b=c" (see `overridden`) and ${a.b} interpolation resolved.

    Raises SpecError or RegistryError; imports nothing heavier than OmegaConf, and that only where something is interpolated.
    """
    path = spec_path(path)
    values = read_yaml(path)
    if not isinstance(values, Mapping):
        raise SpecError(f"{path}: expected a mapping of {', '.join(_sections())}, found {_shown(values)}")
    with located(str(path)):
        values = resolved(overridden(renamed(values, str(path)), overrides, _sections()))
    return Spec.from_dict(values, source=str(path), folder=path.parent)


def changed(spec: Spec, overrides: Iterable[str]) -> Spec:
    """A resolved spec with overrides "a.b=c" of what a trained model does not depend on: `eval` and where `data` lie.

    Raises SpecError for any other section, or as `read_spec` does.
    """
    given = list(overrides)
    for override in given:
        if override.partition("=")[0].split(".")[0] not in CHANGEABLE:
            raise SpecError(
                f"--set {override}: a trained model is as its spec says; only {' and '.join(CHANGEABLE)} can be changed"
            )
    if not given:
        return spec
    return Spec.from_dict(resolved(overridden(escaped(spec.to_dict()), given, _sections())), source=spec.source)


def save_spec(spec: Spec, path: str | Path) -> None:
    """Writes the resolved spec, atomically; `read_spec` gives it back."""
    replace_file(Path(path), dump(spec.to_dict()))


def entries(spec: Spec) -> list[tuple[str, str, Entry]]:
    """(key path, kind, entry) of every part that the spec names at its sections, in the order of building."""
    found = [(key, kind, getattr(spec, key)) for key, kind in SECTIONS.items()]
    if spec.student is not None:
        found.append(("student.head", "student_heads", spec.student.head))
    if spec.eval is not None:
        sampler, teacher = spec.eval.sampler_and_teacher()
        found += [("eval.sampler", "samplers", sampler), ("eval.sampler.teacher", "teachers", teacher)]
        found += [(f"eval.metrics[{i}]", "metrics", metric) for i, metric in enumerate(spec.eval.metrics)]
    return [item for item in found if item[2] is not None]


def _normalised(spec: Spec, folder: Path) -> Spec:
    """Every entry a mapping, the objective filled in, plugin files absolute, "inf" written as text."""
    for key in REQUIRED[spec.task]:
        if getattr(spec, key) is None:
            raise SpecError(f"{key}: missing; task {spec.task!r} needs {', '.join(REQUIRED[spec.task])}.")
    objective = spec.objective or {}
    if isinstance(objective, Mapping) and spec.task in DEFAULT_OBJECTIVE:
        objective = {"name": DEFAULT_OBJECTIVE[spec.task], **objective}
    given = {key: getattr(spec, key) for key in SECTIONS} | {"objective": objective}
    at_home = lambda text: (
        str(user_path(text)) if text.startswith("~/") else text
    )  # DeepSpeed takes paths as they stand
    sections: dict[str, Any] = {k: None if entry is None else full_entry(entry, k) for k, entry in given.items()}
    return dataclasses.replace(
        spec,
        **sections,
        student=spec.student and dataclasses.replace(spec.student, head=full_entry(spec.student.head, "student.head")),
        eval=spec.eval and spec.eval.normalised(),
        plugins=[_absolute(plugin, folder) for plugin in spec.plugins],
        deepspeed=with_texts(spec.deepspeed, at_home),
    )


def _absolute(plugin: str, folder: Path) -> str:
    return str(real_path(folder / user_path(plugin))) if is_file(plugin) else plugin


def _check_names(spec: Spec, registry: Registry) -> None:
    """Every name, those of nested parts too, is known to the registry; nothing is imported for it."""
    for where, kind, entry in entries(spec):
        _check_entry(registry, kind, entry, where)


def _check_entry(registry: Registry, kind: str, entry: Mapping, where: str) -> None:
    try:
        registry.find(kind, entry["name"])
    except RegistryError as error:
        raise RegistryError(f"{where}.name: {error}") from error
    _check_nested(registry, entry, where)


def _check_nested(registry: Registry, options: Mapping, where: str) -> None:
    for key, value in options.items():
        if isinstance(value, Mapping):
            if key in NESTED and isinstance(value.get("name"), str):
                _check_entry(registry, NESTED[key], value, f"{where}.{key}")
            else:
                _check_nested(registry, value, f"{where}.{key}")


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Plain values with every text in them changed."""
    if isinstance(value, Mapping):
        return {key: with_texts(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [with_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _shown(values: Any) -> str:
    """What a file holds that is no mapping, in a few words."""
    return "nothing" if values is None else f"a {'list' if isinstance(values, list) else type(values).__name__}"


def _sections() -> list[str]:
    return [f.name for f in dataclasses.fields(Spec) if f.name != "source"]
