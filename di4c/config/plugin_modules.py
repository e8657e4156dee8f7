"""Plugin modules and files: what they register, read without running them, and how their files are imported.

A plugin says what it registers in one literal at its top level, with class names or "module:Class" strings as values:

    DI4C_PLUGINS = {"teachers": {"my-teacher": "MyTeacher"}}
"""

import ast
import atexit
import functools
import hashlib
import importlib.machinery
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from di4c.errors import RegistryError
from di4c.paths import real_path, user_path

DECLARATION = "DI4C_PLUGINS"


def is_file(plugin: str) -> bool:
    """Whether an item of a spec's `plugins:` names a file and not a module."""
    return plugin.endswith(".py") or "/" in plugin


def file_of(plugin: str) -> Path | None:
    """The absolute path of a plugin file; None for a module."""
    return real_path(user_path(plugin)) if is_file(plugin) else None


def declared(plugin: str) -> dict[str, dict[str, str]]:
    """{kind: {name: "module:Class"}} of a module or a .py file, from its syntax tree alone.

    Raises RegistryError if there is no such module or file, or its declaration is missing or not a literal.
    """
    source = _source_of(plugin)
    module = module_name(source) if is_file(plugin) else plugin
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"), str(source))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise RegistryError(f"plugins: {plugin} is not valid Python: {error}") from error
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == DECLARATION for t in targets):
            return _literal(getattr(node, "value", None), module, plugin)
    raise RegistryError(
        f"plugins: {plugin} has no {DECLARATION}. "
        f'Add for example: {DECLARATION} = {{"teachers": {{"my-teacher": "MyTeacher"}}}}'
    )


def code_digest(plugins: Iterable[str]) -> dict[str, str]:
    """{"plugins": a digest of the code of plugin files and modules}, by which a result that they had a part in is known; {} without any."""
    codes = [_source_of(plugin).read_bytes() for plugin in plugins]
    digest = hashlib.sha256(b"".join(hashlib.sha256(code).digest() for code in codes))
    return {"plugins": digest.hexdigest()[:16]} if codes else {}


def module_name(file: Path) -> str:
    """A module name of its own for a plugin file, the same in every process."""
    stem = "".join(c if c.isalnum() else "_" for c in file.stem)
    return f"di4c_file_{stem}_{hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()}"


def make_importable(file: Path) -> None:
    """Lets `import <module_name(file)>` run the file, here and in worker processes, and the file find its neighbours.

    A folder of stand-ins is on sys.path, which spawned workers inherit; the file's own folder goes last on it, so that
    nothing there hides an installed package. A stand-in keeps the file's true `__file__`, which a link would not.
    """
    stand_in = _stand_ins() / f"{module_name(file)}.py"
    if not stand_in.exists():
        code = f"__file__ = {str(file)!r}\nexec(compile(open(__file__, 'rb').read(), __file__, 'exec'))\n"
        stand_in.write_text(code, encoding="utf-8")
        importlib.invalidate_caches()
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))


def find_source(module: str) -> Path | None:
    """The file of a module, found without importing it or its parents; None if there is none."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
        for depth, _ in enumerate(rest, 2):
            if spec is None or spec.submodule_search_locations is None:
                return None
            name = ".".join(module.split(".")[:depth])
            spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _source_of(plugin: str) -> Path:
    file = file_of(plugin)
    if file is not None:
        if not file.is_file():
            raise RegistryError(f"plugins: no file {file} (a relative path starts at the spec's folder)")
        make_importable(file)
        return file
    source = find_source(plugin)
    if source is None:
        raise RegistryError(f"plugins: no module named {plugin!r} on the import path (a file's path ends in .py)")
    return source


def _literal(node: ast.expr | None, module: str, plugin: str) -> dict[str, dict[str, str]]:
    """{kind: {name: reference}} of the declaration's dict display."""
    problem = f"plugins: {DECLARATION} in {plugin} must be a literal {{kind: {{name: Class or 'module:Class'}}}}"
    if not isinstance(node, ast.Dict):
        raise RegistryError(problem)
    kinds: dict[str, dict[str, str]] = {}
    for kind, names in zip(node.keys, node.values, strict=True):
        if not isinstance(kind, ast.Constant) or not isinstance(names, ast.Dict):
            raise RegistryError(problem)
        for name, value in zip(names.keys, names.values, strict=True):
            reference = value.id if isinstance(value, ast.Name) else getattr(value, "value", None)
            if not isinstance(name, ast.Constant) or not isinstance(reference, str):
                raise RegistryError(problem)
            kinds.setdefault(str(kind.value), {})[str(name.value)] = (
                reference if ":" in reference else f"{module}:{reference}"
            )
    return kinds


@functools.cache
def _stand_ins() -> Path:
    """A folder of this process, on sys.path until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="di4c-plugins-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sys.path.append(str(folder))
    return folder
