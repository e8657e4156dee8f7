"""Names of parts → classes, lazily: nothing is imported before its name is asked for."""

import importlib
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from di4c.config import plugin_modules
from di4c.config.kinds import KINDS
from di4c.config.suggest import suggestion
from di4c.errors import RegistryError
from di4c.old_keys import renamed_kind

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
        elsewhere = [KINDS[other].key for other in KINDS if name in self._targets[other]]
        remark = f" ({name!r} names a {' and a '.join(elsewhere)})" if elsewhere else ""
        raise RegistryError(f"no {KINDS[kind].key} named {name!r}{remark}.{suggestion(name, targets)}")

    def resolve(self, kind: str, name: str) -> Any:
        """The class (or factory) of a name, imported now. Raises RegistryError, its cause kept."""
        target = self.find(kind, name)
        module, _, attribute = target.reference.partition(":")
        told = f"{KINDS[kind].key} {name!r} is {target.told} (from {target.source})"
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
            f"{target.source}: {KINDS[target.kind].key} {target.name!r} is {target.reference!r}; "
            "expected 'package.module:Class'."
        )


def _mapping_targets(kinds: Any, source: str, file: Path | None = None) -> list[Target]:
    if not isinstance(kinds, dict) or not all(isinstance(names, dict | None) for names in kinds.values()):
        raise RegistryError(f"{source}: expected kind → name → 'module:Class', found {kinds!r}.")
    return [
        Target(renamed_kind(kind, source), name, reference, source, file)
        for kind, names in kinds.items()
        for name, reference in (names or {}).items()
    ]


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
    sources = [f"entry point of {point.dist.name}" for point in points]
    return [
        Target(renamed_kind(point.group.removeprefix(prefix), source), point.name, point.value, source)
        for point, source in zip(points, sources, strict=True)
    ]
