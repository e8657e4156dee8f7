"""The wheel is built, installed into a folder of its own, and used from another one."""

import importlib.metadata
import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import di4c
from tests.pinned import needs
from tests.test_imports import imported

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = PROJECT["project"]["dependencies"] + [
    name
    for extra, names in PROJECT["project"]["optional-dependencies"].items()
    if extra not in ("docs", "lint")
    for name in names
]
"""Of the library and its tests; what renders the site is installed by itself."""
PACKAGES = {"di4c": "di4c", "plugins": "di4c_plugins"}
"""Folder → the name it is imported by."""


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PIP_NO_INDEX": "1"})
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what the wheel is built from, so that the build leaves nothing behind in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    (copy / "tools").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "registry.yaml", "tools/specs", *PACKAGES):
        subprocess.run(["cp", "-R", "--no-dereference", str(ROOT / name), str((copy / name).parent)], check=True)
    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    return next(folder.glob("di4c-*.whl"))


@needs("setuptools>=77")
def test_the_wheel_holds_every_source_file_template_and_spec_and_the_registry(wheel, source):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        assert archive.read("di4c/registry.yaml") == (source / "registry.yaml").read_bytes()
        for spec in (source / "tools/specs").glob("*.yaml"):
            assert archive.read(f"di4c/specs/{spec.name}") == spec.read_bytes()
    missing = {
        f"{package}/{path.relative_to(source / folder)}"
        for folder, package in PACKAGES.items()
        for path in (source / folder).rglob("*")
        if path.suffix in (".py", ".typed") or path.parent.name == "templates"
    } - held
    assert not missing, f"add their packages to [tool.setuptools] packages in pyproject.toml: {sorted(missing)}"
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert not [name for name in held if name.startswith(("tests", "tools"))]


SHORT = "--steps 1 --samples 40 --seeds 1 --metrics pairwise"
FIRST_RUN = [
    "train --spec digits-teacher --set train.steps=20",
    f"eval --run runs/digits-teacher --out report {SHORT}",
    "sample --run runs/digits-teacher --steps 2 --num 4 --out digits.png",
]
"""What a newcomer types after `pip install`, each after `di4c`."""


def trained_evaluated_and_sampled(folder: Path) -> bool:
    return all(
        (folder / made).is_file()
        for made in ("runs/digits-teacher/export/model.safetensors", "report/report.html", "digits.png")
    )


@needs("setuptools>=77")
def test_the_wheel_trains_evaluates_and_samples_from_another_folder(wheel, tmp_path):
    """In one process, so that torch is imported once; the script itself is asked for its version alone."""
    target = tmp_path / "site"
    pip("install", "--no-deps", "--quiet", "--target", str(target), str(wheel))
    code = f"""
import sys
sys.path[:] = [entry for entry in sys.path if entry not in ("", {str(ROOT)!r})]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", str(finder))]
import di4c, di4c_plugins
assert di4c.__file__.startswith({str(target)!r}), di4c.__file__
assert di4c_plugins.__file__.startswith({str(target)!r}), di4c_plugins.__file__
from di4c.__main__ import main
for line in ["list", *{FIRST_RUN!r}]:
    assert main(line.split()) == 0, line
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | {"DS_ACCELERATOR": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "registry.yaml" in ended.stdout and trained_evaluated_and_sampled(tmp_path)
    script = [str(target / "bin/di4c"), "--version"]
    assert (
        subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
        == f"di4c {di4c.__version__}\n"
    )
    said = subprocess.run(
        [script[0], "verify", "theory"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert said.returncode == 2 and "python tools/verify.py" in said.stderr and len(said.stderr.splitlines()) == 1


@pytest.mark.slow
@needs("setuptools>=77")
def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    """What a newcomer does, with the dependencies that pip finds within the pinned versions: some 2 GB."""
    python, environment = (
        tmp_path / "empty/bin/python",
        {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
    )

    def run(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run(sys.executable, "-m", "venv", str(tmp_path / "empty")).returncode == 0
    constraints = str(ROOT / "tools/constraints.txt")
    if run(
        str(python), "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path), "-c", constraints, "filelock"
    ).returncode:
        pytest.skip("no package index can be reached")
    installed = run(str(python), "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel))
    assert installed.returncode == 0, installed.stderr
    for line in FIRST_RUN:
        done = run(str(tmp_path / "empty/bin/di4c"), *line.split())
        assert done.returncode == 0, done.stdout + done.stderr
    assert trained_evaluated_and_sampled(tmp_path)


def test_every_dependency_has_a_reason_and_a_pin():
    text = (ROOT / "pyproject.toml").read_text()
    pins = {line.partition("==")[0] for line in (ROOT / "tools/constraints.txt").read_text().splitlines()}
    for dependency in DEPENDENCIES:
        assert re.search(rf'^ +"{re.escape(dependency)}", +# \w', text, re.MULTILINE), f"{dependency} has no reason"
        assert re.split("[<>=]", dependency)[0] in pins, f"{dependency} is not pinned"


IMPORTED_AS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "mkdocs": "mkdocs-material"}
"""Import name → name in the registry, where they differ."""
OPTIONAL = {"triton"}
"""What may be imported without being declared: it comes with the builds of torch that can use it."""
TOOLS = {path.stem for path in (ROOT / "tools").rglob("*") if path.suffix == ".py" or path.is_dir()}
OWN = {"di4c", "di4c_plugins", "tests", "tools", "neighbour_of_the_plugin", *TOOLS, *sys.stdlib_module_names}


def foreign(folder: str) -> set[str]:
    """The distributions that the Python files of a folder import, wherever in a file."""
    files = list((ROOT / folder).rglob("*.py"))
    names = {name.partition(".")[0] for path in files for name in imported(path, folder)} - OWN
    return {IMPORTED_AS.get(name, name).lower() for name in names}


def declared(dependencies: list[str]) -> set[str]:
    return {re.split("[<>=]", dependency)[0].lower() for dependency in dependencies}


def test_what_is_imported_is_declared():
    extras = PROJECT["project"]["optional-dependencies"]
    needed = declared(PROJECT["project"]["dependencies"])
    optional = declared([*extras["hf"], *extras["lora"]]) | OPTIONAL
    everything = needed | optional | declared(extras["test"]) | declared(extras["docs"])
    found = {folder: foreign(folder) for folder in ("di4c", "plugins", "tools", "tests")}
    assert {"torch", "pillow", "pyarrow", "pyyaml", "huggingface_hub", "filelock"} <= found["di4c"] | found["plugins"]
    for folder, allowed in {
        "di4c": needed | optional,
        "plugins": needed | optional,
        "tools": everything,
        "tests": everything,
    }.items():
        assert found[folder] <= allowed, (
            f"{folder} imports what pyproject.toml does not declare: {found[folder] - allowed}"
        )


def test_every_range_has_both_ends_and_holds_the_pinned_version():
    lines = (ROOT / "tools/constraints.txt").read_text().lower().splitlines()
    pins = dict(line.split("==") for line in lines if line and line[0] != "#")
    for requirement in map(Requirement, DEPENDENCIES):
        assert {clause.operator for clause in requirement.specifier} == {">=", "<"}, requirement
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


@pytest.mark.parametrize("line", ["torch 2.11.0", "triton 3.6.0", "transformers 5.17.0"])
def test_the_versions_of_gpu_machines_are_admitted(line):
    name, version = line.split()
    ranges = {r.name: r.specifier for r in map(Requirement, DEPENDENCIES)}
    assert name not in ranges or ranges[name].contains(version)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("2.13.0", None),
        ("2.13.0+cpu", None),
        ("2.12.1", "torch is 2.12.1, not 2.13.0"),
        (None, "torch is not installed"),
    ],
)
def test_any_build_of_the_pinned_version_is_kept(monkeypatch, found, told):
    checker = runpy.run_path(str(ROOT / "tools/check_install.py"))

    def version(name: str) -> str:
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert checker["_wrong"]("torch==2.13.0") == told


def test_it_is_told_whose_code_an_environment_holds(monkeypatch, capsys, tmp_path):
    """Before another checkout takes it over."""
    checker = runpy.run_path(str(ROOT / "tools/check_install.py"))
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/constraints.txt").write_text("")
    monkeypatch.setitem(checker["main"].__globals__, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert checker["main"]() == 1
    told = f"di4c is not installed from {tmp_path}; this environment's now comes from {ROOT}, and will come from here"
    assert told in capsys.readouterr().out


def test_flash_attention_is_never_required():
    assert "flash" not in (ROOT / "pyproject.toml").read_text()
