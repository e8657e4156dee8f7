"""What `python -m di4c list` tells of a name, read from source text without importing it."""

import ast
from pathlib import Path

from di4c.config.plugin_modules import find_source
from di4c.config.registry import Target


def first_docstring_line(target: Target) -> str:
    """The first line of the class's docstring; a short remark where there is none or no source."""
    module, _, attribute = target.reference.partition(":")
    source = target.file or find_source(module)
    if source is None:
        return "(no source found)"
    try:
        node = _definition(source, attribute)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        return f"(source cannot be read: {error})"
    if node is None:
        return "(no source found)"
    return (ast.get_docstring(node) or "(no docstring)").splitlines()[0]


def _definition(source: Path, attribute: str) -> ast.ClassDef | ast.FunctionDef | None:
    """The class or function that `attribute` names in a file, through its `from … import` lines if need be."""
    tree: ast.AST = ast.parse(source.read_text(encoding="utf-8"))
    first, _, rest = attribute.partition(".")
    for node in reversed(list(ast.iter_child_nodes(tree))):
        if getattr(node, "name", None) == first and isinstance(node, ast.ClassDef | ast.FunctionDef):
            return _inner(node, rest)
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                origin = find_source(node.module) if first == (alias.asname or alias.name) else None
                if origin is not None and origin != source:
                    return _definition(origin, ".".join(filter(None, (alias.name, rest))))
    return None


def _inner(node: ast.AST, attribute: str) -> ast.ClassDef | ast.FunctionDef | None:
    for part in filter(None, attribute.split(".")):
        node = next((n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == part), None)
        if node is None:
            return None
    return node if isinstance(node, ast.ClassDef | ast.FunctionDef) else None
