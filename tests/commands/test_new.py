"""`di4c new`: what it writes works as it stands."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from di4c.__main__ import main
from di4c.command_line import USER_ERROR
from di4c.commands.new import SPECS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["my-teacher", "no", "Linear_readout2"])
def test_a_new_teacher_passes_its_own_test_and_its_spec_is_valid(name, tmp_path, capsys):
    assert main(["new", "teacher", name, "--folder", str(tmp_path / "a/b")]) == 0
    told = capsys.readouterr().out
    code, spec, test = (
        tmp_path / "a/b" / file.format(name.replace("-", "_")) for file in ("{}.py", "{}.yaml", "test_{}.py")
    )
    assert all(str(path) in told for path in (code, spec, test))
    assert len([line for line in code.read_text().splitlines() if line.strip()]) <= 30
    tests = [value for key, value in runpy.run_path(str(test)).items() if key.startswith("test_")]
    assert len(tests) == 2
    for passes in tests:
        passes()
    assert main(["check", str(spec)]) == 0
    assert f"{code.name}:" in capsys.readouterr().out


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_a_new_part_of_any_kind_passes_its_own_test_and_its_spec_is_valid(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["new", kind, f"new-{kind}", "--folder", str(tmp_path)]) == 0
    tests = runpy.run_path(str(tmp_path / f"test_new_{kind}.py"))
    ran = [test() for name, test in tests.items() if name.startswith("test_")]
    assert len(ran) == 2 and main(["check", str(tmp_path / f"new_{kind}.yaml")]) == 0
    assert f"new_{kind}.py:New{kind.title()}" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "test_mine.py").write_text("my own")
    assert main(["new", "teacher", "mine", "--folder", str(tmp_path)]) == USER_ERROR
    assert "test_mine.py: exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("json", "json is a word or a module of Python's"),
        ("torch", "torch is a word or a module"),
        ("lambda", "lambda is a word"),
        ("mdlm", "a teacher of that name exists already"),
        ("a.b", "a name is made of"),
        ("../x", "a name is made of"),
        ("é", "a name is made of"),
        ("x-", "a name is made of"),
        ("", "a name is made of"),
        ("x" * 101, "at most 100 characters"),
    ],
)
def test_a_name_that_cannot_be_is_told(name, told, tmp_path, capsys):
    assert main(["new", "teacher", name, "--folder", str(tmp_path / "new")]) == USER_ERROR
    assert told in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_new_teacher_is_tested_trained_and_sampled_as_a_user_would(tmp_path):
    def run(*command):
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("di4c", "new", "teacher", "my-teacher")
    run("pytest", "-q", "-p", "no:cacheprovider", "test_my_teacher.py")
    run("di4c", "train", "--spec", "my_teacher.yaml")
    run("di4c", "sample", "--run", "runs/my-teacher", "--steps", "2", "--num", "4", "--out", "x.png")
    assert (tmp_path / "x.png").is_file()
