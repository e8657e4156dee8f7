"""Names of parts → classes, lazily: nothing is imported before its name is asked for."""

import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from di4c.config import plugin_modules
from di4c.config.construct import Construction, plan
from di4c.config.suggest import suggestion
from di4c.errors import RegistryError

SINGULAR = {
    "teachers": "teacher",
    "backbones": "backbone",
    "processes": "process",
    "parameterisations": "parameterisation",
    "student_heads": "head",
    "lambda_samplers": "latent",
    "posteriors": "posterior",
    "loss_estimators": "estimator",
    "samplers": "sampler",
    "metrics": "metric",
    "datasets": "dataset",
    "tokenizers": "tokenizer",
    "objectives": "objective",
    "time_samplers": "time",
    "pipelines": "pipeline",
}
"""Every kind of part, with the key under which a spec (or another part's options) names one of it."""

KINDS = tuple(SINGULAR)

SPEC_KEYS = {
    "teachers": "teacher",
    "backbones": "teacher.backbone",
    "processes": "process",
    "parameterisations": "teacher.parameterisation",
    "student_heads": "student.head",
    "lambda_samplers": "latent",
    "posteriors": "objective.proposal.posterior",
    "loss_estimators": "objective.data.estimator, objective.consistency.estimator",
    "samplers": "objective.sampler, eval.sampler",
    "metrics": "eval.metrics",
    "datasets": "data",
    "tokenizers": "objective.tokenizer, data.tokenizer",
    "objectives": "objective",
    "time_samplers": "objective.time, objective.distillation_time",
    "pipelines": "pipeline",
}
"""Where a name of each kind stands in a spec."""
ENTRY_POINT_GROUP = "di4c"
REGISTRY_FILE = Path(__file__).parent.parent / "registry.yaml"


@dataclass(frozen=True)
class Target:
    """What a name stands for: reference "module:Class", the source that says so, and the file of a plugin file."""

    kind: str
    name: str
    reference: str
    source: str
    file: Path | None = None

    @property
    def told(self) -> str:
        """The reference as a message shows it: "module:Class", or "my_plugin.py:Class"."""
        return f"{self.file.name}:{self.reference.partition(':')[2]}" if self.file is not None else self.reference


class Registry:
    """The names of all kinds. Immutable; a spec's `plugins:` make another Registry."""

    def __init__(self, targets: Iterable[Target]):
        """Raises RegistryError if a kind is unknown or a name has two targets, naming both sources."""
        self._targets: dict[str, dict[str, Target]] = {kind: {} for kind in KINDS}
        for target in targets:
            _check_target(target)
            known = self._targets[target.kind].setdefault(target.name, target)
            if known.reference != target.reference:
                raise RegistryError(
                    f"two {target.kind} are named {target.name!r}: {known.told} (from {known.source}) and "
                    f"{target.told} (from {target.source}). Rename one, or name a class directly as 'module:Class'."
                )

    @classmethod
    def default(cls, plugins: Iterable[str] = ()) -> "Registry":
        """The names of registry.yaml, of installed entry points, and of plugin modules or .py files."""
        targets = [*_file_targets(REGISTRY_FILE), *_entry_point_targets()]
        for plugin in plugins:
            file = plugin_modules.file_of(plugin)
            targets += _mapping_targets(plugin_modules.declared(plugin), f"plugins: {plugin}", file)
        return cls(targets)

    def targets(self, kind: str) -> list[Target]:
        """The targets of a kind, by name."""
        return sorted(self._of(kind).values(), key=lambda target: target.name)

    def find(self, kind: str, name: str) -> Target:
        """The target of a name, or of a direct "module:Class"; imports nothing.

        Raises RegistryError for an unknown name, with the nearest ones and all known ones.
        """
        targets = self._of(kind)
        if name in targets:
            return targets[name]
        if ":" in name:
            target = Target(kind, name, name, "named directly")
            _check_target(target)
            return target
        elsewhere = [SINGULAR[other] for other in KINDS if name in self._targets[other]]
        remark = f" ({name!r} names a {' and a '.join(elsewhere)})" if elsewhere else ""
        raise RegistryError(f"no {SINGULAR[kind]} named {name!r}{remark}.{suggestion(name, targets)}")

    def resolve(self, kind: str, name: str) -> Any:
        """The class (or factory) of a name, imported now. Raises RegistryError, its cause kept."""
        target = self.find(kind, name)
        module, _, attribute = target.reference.partition(":")
        told = f"{SINGULAR[kind]} {name!r} is {target.told} (from {target.source})"
        from di4c.torchvision_compat import declare_missing_operators  # imports torch, which names alone do not need

        declare_missing_operators()
        try:
            found: Any = importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise RegistryError(f"{told}, but its import failed: {type(error).__name__}: {error}") from error
        for part in attribute.split("."):
            if not hasattr(found, part):
                public = [n for n in vars(found) if not n.startswith("_")]
                raise RegistryError(f"{told}, but there is no {attribute!r}.{suggestion(part, public, 'It has')}")
            found = getattr(found, part)
        return found

    def plan(self, kind: str, entry: str | Mapping, provided: Iterable[str] = (), where: str = "") -> Construction:
        """How `create` would build the entry, every option checked and coerced; imports, but calls no constructor."""
        return plan(self, kind, entry, provided, where)

    def create(
        self, kind: str, entry: str | Mapping, provided: Mapping[str, Any] | None = None, where: str = ""
    ) -> Any:
        """The object of {"name": …, **options}, or of a bare name.

        Options that name parts themselves (backbone: {name: dit}) are created first. Of `provided`, a constructor gets
        what it has parameters for; an option of the entry goes before a provided value.

        Raises RegistryError for unknown names and keys and missing keys, SpecError for values of a wrong type.
        """
        provided = dict(provided or {})
        return self.plan(kind, entry, provided, where).build(provided)

    def _of(self, kind: str) -> dict[str, Target]:
        if kind not in self._targets:
            raise RegistryError(f"no kind {kind!r}.{suggestion(kind, KINDS)}")
        return self._targets[kind]


def _check_target(target: Target) -> None:
    if target.kind not in KINDS:
        raise RegistryError(f"{target.source}: no kind {target.kind!r}.{suggestion(target.kind, KINDS)}")
    module, _, attribute = str(target.reference).partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise RegistryError(
            f"{target.source}: {SINGULAR[target.kind]} {target.name!r} is {target.reference!r}; "
            "expected 'package.module:Class'."
        )


def _mapping_targets(kinds: Any, source: str, file: Path | None = None) -> list[Target]:
    if not isinstance(kinds, dict) or not all(isinstance(names, dict | None) for names in kinds.values()):
        raise RegistryError(f"{source}: expected kind → name → 'module:Class', found {kinds!r}.")
    return [Target(k, name, ref, source, file) for k, names in kinds.items() for name, ref in (names or {}).items()]


def _file_targets(path: Path) -> list[Target]:
    try:
        kinds = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RegistryError(f"cannot read {path}: {error}") from error
    return _mapping_targets(kinds, path.name)


def _entry_point_targets() -> list[Target]:
    """Entry points `name = "module:Class"` in groups di4c.teachers, di4c.backbones, … of installed distributions."""
    prefix = ENTRY_POINT_GROUP + "."
    found = importlib.metadata.entry_points()  # of two copies of a distribution, those of the first on the import path
    points = [
        point for group in sorted(found.groups) if group.startswith(prefix) for point in found.select(group=group)
    ]
    return [Target(p.group.removeprefix(prefix), p.name, p.value, f"entry point of {p.dist.name}") for p in points]
