"""Tests of the CPU never see a GPU, whatever they start; tests of a GPU do."""

import ast
import os
from pathlib import Path

import pytest
import torch

from tests.devices import CHOICE, HIDDEN, asks_for_gpu, choose

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], False),
        (["-m", "not slow"], False),
        (["-q", "tests/engine/test_faults.py"], False),
        (["-m", "gpu"], True),
        (["-mgpu"], True),
        (["-m", "gpu and not slow", "-x"], True),
        (["-m", "not gpu"], False),
        (["-m", "not slow and not gpu", "tests/gpu"], False),
        (["-m", "not slow", "-m", "gpu"], True),
    ],
)
def test_what_asks_for_a_gpu(arguments, asked):
    assert asks_for_gpu(arguments) is asked


def test_a_folder_of_gpu_tests_asks_for_one(tmp_path):
    file = tmp_path / "gpu" / "test_kernels.py"
    file.parent.mkdir()
    file.touch()
    assert asks_for_gpu(["-q", f"{file}::test_it"]) and asks_for_gpu([str(file.parent), "-m", "not slow"])
    assert not asks_for_gpu([str(file), str(tmp_path)])


def test_the_choice_is_handed_to_workers():
    environment = {}
    choose(["-m", "gpu"], environment)
    choose([], environment)
    assert environment == {CHOICE: "gpu"}
    environment = {"CUDA_VISIBLE_DEVICES": "0"}
    choose([], environment)
    assert environment == {CHOICE: "cpu"} | HIDDEN


@pytest.mark.skipif(os.environ.get(CHOICE) == "gpu", reason="this process tests a GPU")
def test_this_process_and_what_it_starts_see_no_gpu():
    assert {name: os.environ.get(name) for name in HIDDEN} == HIDDEN
    assert not torch.cuda.is_available()


def test_no_test_starts_a_process_without_this_environment():
    """`env=` of every call under tests/ is built from os.environ, or keeps what hides a GPU; nothing else sets those variables."""
    wrong = []
    for path in TESTS.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            for keyword in node.keywords if isinstance(node, ast.Call) else []:
                if keyword.arg != "env":
                    continue
                value = (
                    names.get(keyword.value.id, keyword.value) if isinstance(keyword.value, ast.Name) else keyword.value
                )
                if not _inherits(value, names):
                    wrong.append(f"{path.relative_to(TESTS)}:{node.lineno}")
    assert not wrong, f"these processes would see a GPU; build env from os.environ or add devices.HIDDEN: {wrong}"


def _inherits(value: ast.expr, names: dict[str, ast.expr], depth: int = 3) -> bool:
    text = ast.unparse(value)
    if "os.environ" in text or "HIDDEN" in text:
        return True
    used = [names[node.id] for node in ast.walk(value) if isinstance(node, ast.Name) and node.id in names]
    return depth > 0 and any(_inherits(inner, names, depth - 1) for inner in used)
