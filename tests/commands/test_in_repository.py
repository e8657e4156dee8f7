"""`di4c verify` and `di4c bench`: the tools of the checkout, and one line where there is none."""

import shutil
import sys
from pathlib import Path

import pytest

from di4c.__main__ import main
from di4c.command_line import USER_ERROR
from di4c.commands import in_repository

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_checkout_runs_its_tools(tmp_path, capsys):
    for ending in (".safetensors", ".json"):
        shutil.copy(GOLDEN / f"self_bleu{ending}", tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["verify", "golden", str(tmp_path)])
    assert ended.value.code == 0 and "self_bleu" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["verify", "bench"])
def test_a_wheel_says_where_they_are(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(in_repository, "TOP", tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / f"tools/{name}.py").write_text("raise SystemExit('of another package')")
    assert main([name, "--help"]) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert f"python tools/{name}.py" in line and "not in the wheel" in line
