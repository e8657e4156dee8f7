"""Who may import whom, by reading the sources."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ("di4c.contracts", "di4c.errors", "di4c.draws", "di4c.files", "di4c.paths", "di4c.ranks")
"""All that a plugin may import of di4c."""

MADE_OF_TERMS = {
    f"plugins/objectives/{name}.py"
    for name in ("distribution_matching", "matching_diagnostics", "matching_forms", "matching_inputs")
}
"""The objective that extends Di4C, beside whose terms its own stand, and its files."""
TERMS = ("di4c.losses", "di4c.mixture", "di4c.kernels.backend")
"""What these may import besides."""

FOLDERS = (
    "kernels", "contracts", "mixture", "diagnostics", "losses", "engine", "config", "planning", "evaluation", "pipeline", "testing",
    "commands",
)  # fmt: skip
"""The folders of di4c from the bottom to the top: each may import those before it."""


SYSTEMS = (
    "mdlm", "sdtt", "maskgit", "tauldr", "vqgan", "unet", "llada", "gpt", "rxnfp", "smiles", "halton", "digits", "fashion", "mnist",
    "cifar", "imagenet", "openwebtext",
)  # fmt: skip
"""Concrete models, data sets and samplers: what has such a name is a plugin."""

SHORT_SYSTEMS = {"vq", "dit", "owt"}
"""The same, where only a whole word is one."""


def imported(path: Path, package: str) -> Iterator[str]:
    """Modules named in import statements, wherever in the file; relative ones resolved against `package`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            yield ".".join(filter(None, (parent, node.module)))


def package_of(path: Path, folder: Path, name: str) -> str:
    return ".".join([name, *path.parent.relative_to(folder).parts])


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in allowed)


@pytest.mark.parametrize("path", sources("di4c"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_never_imports_plugins(path):
    modules = set(imported(path, package_of(path, ROOT / "di4c", "di4c")))
    assert not [m for m in modules if within(m, ("di4c_plugins", "plugins"))]


@pytest.mark.parametrize("path", sources("plugins"), ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_import_contracts_and_one_another_only(path):
    modules = set(imported(path, package_of(path, ROOT / "plugins", "di4c_plugins")))
    allowed = CONTRACTS + (TERMS if str(path.relative_to(ROOT)) in MADE_OF_TERMS else ())
    assert not [m for m in modules if within(m, ("di4c",)) and not within(m, allowed)]
    assert not [m for m in modules if within(m, ("plugins",))], "import them as di4c_plugins"


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows_run_downwards(folder):
    above = tuple(f"di4c.{name}" for name in FOLDERS[FOLDERS.index(folder) + 1 :])
    for path in sources(f"di4c/{folder}"):
        modules = set(imported(path, package_of(path, ROOT / "di4c", "di4c")))
        assert not [m for m in modules if within(m, above)], path


def spoken(path: Path) -> Iterator[str]:
    """Every name in the code of a file, and every string but docstrings, which may cite a source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [body for parent in ast.walk(tree) if isinstance(body := getattr(parent, "body", None), list)]
    docstrings = {id(node.value) for body in bodies for node in body if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
        yield from (
            value for key in ("id", "attr", "name", "arg") if isinstance(value := getattr(node, key, None), str)
        )


def systems_in(text: str) -> set[str]:
    found = {name for name in SYSTEMS if name in text.lower()}
    return found | SHORT_SYSTEMS & set(re.findall("[a-z]+", text.lower()))


@pytest.mark.parametrize("path", sources("di4c"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_names_no_system(path):
    assert not {system for text in spoken(path) for system in systems_in(text)}


def test_systems_are_seen_in_names_and_strings(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        '"""As in MDLM."""\nimport a.vqgan\ndef is_maskgit(vq_codes): return x.Tauldr or "sdtt"\nNAME = 1\n"""MDLM\'s."""\n'
    )
    found = {system for text in spoken(file) for system in systems_in(text)}
    assert found == {"vqgan", "maskgit", "vq", "tauldr", "sdtt"}


def test_every_room_has_its_place():
    folders = {path.parent.relative_to(ROOT / "di4c").parts[0] for path in (ROOT / "di4c").glob("*/*.py")}
    assert folders == set(FOLDERS)


def test_only_the_reader_of_yaml_knows_omegaconf():
    users = [p for p in sources("di4c") + sources("plugins") if any(within(m, ("omegaconf",)) for m in imported(p, ""))]
    assert [p.relative_to(ROOT) for p in users] == [Path("di4c/yaml_text.py")]


def test_relative_imports_are_seen(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from ..errors import A\nfrom . import b\nimport sys\n")
    assert list(imported(file, "di4c.config")) == ["di4c.errors", "di4c.config", "sys"]


def test_no_shadowing_of_the_standard_library():
    names = {p.stem for folder in ("di4c", "plugins") for p in (ROOT / folder).glob("*.py")}
    assert not names & (set(sys.stdlib_module_names) - {"__init__", "__main__"})


SUCCESSORS_OF_THE_ALGORITHM = ("kernels", "mixture", "diagnostics", "losses")
"""The folders that read like one text: short files, and few storeys between a loss and its arithmetic."""

LINES_OF_THE_ALGORITHM = 3099
"""What it had, formatted like the rest: 2,776 before a formatter gave every argument of a long call its line."""

CAME_LATER = {
    "losses/full_noise.py", "losses/clusters.py", "losses/proposal.py", "mixture/equal_inputs.py", "kernels/adding.py",
    "diagnostics/posterior.py", "diagnostics/warnings.py", "losses/odd_numbers.py",
}  # fmt: skip
"""Training at t = 1 on equal inputs, posteriors of λ, warnings that the engine gave before, and numbers that nobody refused."""


EXEMPT = {"plugins/objectives"}
"""A circle for a type checker's sake: the inputs of matching name the objective that they are made for."""


def folders() -> list[str]:
    """Every folder of modules whose chains of imports are measured."""
    paths = [path for top in ("di4c", "plugins") for path in sources(top) if path.stem != "__init__"]
    return sorted({str(path.parent.relative_to(ROOT)) for path in paths} - EXEMPT)


def longest_chain(folder: str) -> list[str]:
    """The longest chain of modules of one folder that import one another, imports in functions and under TYPE_CHECKING included."""
    package = folder.replace("plugins", "di4c_plugins").replace("/", ".")
    modules = {path.stem: path for path in (ROOT / folder).glob("*.py") if path.stem != "__init__"}
    below = {}
    for name, path in modules.items():
        wanted = set(imported(path, package)) | {f"{m}.{n}" for m, n in imported_names(path, package)}
        below[name] = {other for other in modules if f"{package}.{other}" in wanted} - {name}

    def longest(name: str, above: tuple[str, ...]) -> list[str]:
        assert name not in above, f"a circle: {' → '.join((*above, name))}"
        return [name, *max((longest(other, (*above, name)) for other in sorted(below[name])), key=len, default=[])]

    return max((longest(name, ()) for name in modules), key=len)


def imported_names(path: Path, package: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every `from module import name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or package, alias.name) for alias in node.names)


@pytest.mark.parametrize("folder", folders())
def test_the_longest_chain_of_imports_within_a_folder_is_five(folder):
    assert len(longest_chain(folder)) <= 5, longest_chain(folder)


def test_the_successors_of_the_algorithm_are_short():
    """No file over 250 lines, and without the parts that came later fewer than the algorithm had."""
    lines = {
        path.relative_to(ROOT / "di4c").as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in SUCCESSORS_OF_THE_ALGORITHM
        for path in sources(f"di4c/{folder}")
    }
    assert not {path: number for path, number in lines.items() if number > 250} and lines.keys() >= CAME_LATER
    assert sum(number for path, number in lines.items() if path not in CAME_LATER) < LINES_OF_THE_ALGORITHM


def test_the_reference_is_at_most_80_lines():
    assert len((ROOT / "di4c/mixture/reference.py").read_text(encoding="utf-8").splitlines()) <= 80
