import importlib
import os
import subprocess
import sys

import pytest

import di4c
from di4c.__main__ import COMMANDS, main
from di4c.command_line import USER_ERROR, command
from di4c.errors import CheckpointError, SpecError
from tests.config.specs import DISTILL, EVAL, changed, written


def test_help_tells_every_command_and_imports_no_torch():
    code = "import sys; from di4c.__main__ import main\ntry: main(['--help'])\nfinally: assert 'torch' not in sys.modules and 'omegaconf' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and all(f"\n  {name} " in done.stdout for name in COMMANDS), done.stderr


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"verify", "bench"}))
def test_every_command_tells_its_options(name, capsys):
    assert callable(importlib.import_module(f"di4c.commands.{COMMANDS[name][0]}").main)
    with pytest.raises(SystemExit) as ended:
        main(["--local_rank=0", name, "--help"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: di4c {name} ")


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "train what a spec describes" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"di4c {di4c.__version__}\n"


def test_list_prints_names_sources_and_docstrings(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in ("token", "monte-carlo", "ancestral", "digits", "registry.yaml", "log-softmax over all states"):
        assert name in shown
    assert "no docstring" not in shown and "no source" not in shown


@pytest.mark.parametrize("kind", ["student_heads", "head", "heads"])
def test_list_of_one_kind_by_its_name_or_its_key(capsys, kind):
    assert main(["list", kind]) == 0
    shown = capsys.readouterr().out
    assert "adaln" in shown and "digits" not in shown


def test_list_of_an_unknown_kind(capsys):
    assert main(["list", "student_head"]) == USER_ERROR
    assert "Did you mean 'student_heads'" in capsys.readouterr().err


def test_list_of_the_shipped_specs(capsys):
    assert main(["list", "specs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("digits-teacher ") for line in lines) and not any(
        "tools/" in line or line.endswith(" ") for line in lines
    )


def test_list_includes_a_plugin_without_importing_it(tmp_path, capsys):
    file = tmp_path / "p.py"
    file.write_text('DI4C_PLUGINS = {"metrics": {"m": "M"}}\nraise SystemExit\nclass M:\n    """Measures."""\n')
    assert main(["list", "metrics", "--plugin", str(file)]) == 0
    assert "Measures." in capsys.readouterr().out


def test_a_reader_that_stops_early_is_no_error():
    ended = subprocess.run(f"{sys.executable} -u -m di4c list | head -1", shell=True, capture_output=True, text=True)
    assert ended.stdout.startswith("teachers") and ended.stderr == ""


def test_list_imports_no_torch():
    code = "import sys; from di4c.__main__ import main; main(['list']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_check(tmp_path, capsys):
    file = written(tmp_path, changed(DISTILL, eval=EVAL))
    assert main(["check", str(file), "--set", "train.steps=77"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"ok: {file}\n") and "77 steps" in shown and "student.head" in shown


@pytest.mark.parametrize("override", ["latent=unifrm", "student.head={name: token, x: 1}", "train.steps=x", "sede=1"])
def test_check_of_a_mistake_is_one_message_and_exit_code_2(tmp_path, override):
    file = written(tmp_path, DISTILL)
    ended = subprocess.run(
        [sys.executable, "-m", "di4c", "check", str(file), "--set", override], capture_output=True, text=True, cwd="/"
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ") and len(ended.stderr.splitlines()) == 1
    assert "Traceback" not in ended.stderr


def test_other_ranks_leave_spec_errors_to_rank_0(capsys, monkeypatch):
    @command
    def fail(error):
        raise error

    monkeypatch.setitem(os.environ, "RANK", "1")
    assert fail(SpecError("alone")) == USER_ERROR and capsys.readouterr().err == "error: alone\n"  # no launcher's rank
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    assert fail(SpecError("s")) == USER_ERROR
    assert capsys.readouterr().err == ""
    assert fail(CheckpointError("c")) == USER_ERROR
    assert capsys.readouterr().err == "[rank 1] error: c\n"


def test_programming_errors_keep_their_traceback():
    @command
    def broken():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        broken()
