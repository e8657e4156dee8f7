"""The README's examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    """The code block that follows <!-- example: name -->."""
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no example {name}"
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's own folder, outside the repository, with the plugin and its spec."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("my_teacher.py", "teacher.yaml"):
        (folder / name).write_text(example(name))
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_teacher_is_about_30_lines():
    assert len([line for line in example("my_teacher.py").splitlines() if line.strip()]) <= 30


def test_the_check_passes(folder):
    run(folder, "-c", example("check"))


def test_a_teacher_outside_the_repository_trains_is_distilled_and_evaluated(folder):
    """A user's own file, named in `plugins:`; nothing under di4c/ or plugins/ knows of it."""
    run(folder, str(ROOT / "tools/train.py"), "--spec", "teacher.yaml", "--set", "train.steps=5")
    student = example("teacher.yaml").replace("task: pretrain", "task: distill").replace("runs/mlp", "runs/student")
    student = re.sub(r"teacher: .*", "teacher: {name: mlp, run: runs/mlp}", student)
    student = re.sub(
        r"objective: .*",
        "student: {head: {name: readout, rank: 4}}\nlatent: uniform\nobjective: {components: 2, sampler: ancestral, "
        "time: {law: uniform}, data: {weight: 1.0, estimator: monte-carlo, gate: {shape: constant, scale: 1.0}}}\n"
        "eval: {sampler: ancestral, metrics: [entropy], steps: [1], mixture_sizes: [inf], samples: 8, seeds: 1, batch_size: 8}",
        student,
    )
    (folder / "student.yaml").write_text(student)
    run(folder, str(ROOT / "tools/train.py"), "--spec", "student.yaml", "--set", "train.steps=5")
    run(folder, str(ROOT / "tools/eval.py"), "--run", "runs/student", "--out", "report")
    assert (folder / "report/eval.json").is_file() and (folder / "report/report.html").is_file()


@pytest.mark.parametrize("page", ["README.md", "tools/results/README.md"])
def test_every_file_that_is_linked_to_exists(page):
    file = ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text(encoding="utf-8"))
    assert links and not [link for link in links if not (file.parent / link).exists()]


def test_every_stored_result_has_its_page():
    """A file of tools/results is linked to from one of the two pages, or it is a leftover."""
    told = README + (ROOT / "tools/results/README.md").read_text(encoding="utf-8")
    names = {file.name for file in (ROOT / "tools/results").iterdir()} - {"README.md"}
    assert names and not [name for name in names if f"{name})" not in told]


def test_the_tables_are_those_of_the_stored_results():
    run(ROOT, str(ROOT / "tools/update_readme.py"), "--check")
