"""The demo: what it trains and compares, in this process without training; and, slow, tiny but whole and continued."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from di4c.commands import evaluate
from di4c.engine import process_group
from tests.documents import ROOT
from tools import demo

TINY = [
    "train.steps=2",
    "train.schedule.warmup=1",
    "train.batch_size=4",
    "eval.samples=20",
    "eval.batch_size=20",
    "eval.steps=[1]",
]


@pytest.fixture
def called(monkeypatch):
    """called(*arguments, finished=True) → (the specs that are trained, what the evaluation is asked for, exit codes)."""
    for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)

    def call(*arguments, finished=True):
        specs, asked, codes = [], [], []

        def run(spec, *, device, resume):
            specs.append((spec, resume))
            return SimpleNamespace(finished=finished)

        monkeypatch.setattr(sys, "argv", ["demo.py", *arguments])
        monkeypatch.setattr(process_group, "start", lambda: torch.device("cpu"))
        monkeypatch.setattr(process_group, "finish", lambda: None)
        monkeypatch.setattr("di4c.engine.allocator.keep_freed_memory", lambda: None)
        monkeypatch.setattr("di4c.pipeline.run.run", run)
        monkeypatch.setattr(evaluate, "evaluate", asked.append)
        monkeypatch.setattr(demo, "leave", codes.append)
        demo.main()
        return specs, asked, codes

    return call


def test_teacher_and_student_are_trained_and_compared(called, capsys):
    specs, (asked,), codes = called("out", "--set", "train.steps=7")
    assert [str(spec.train.run) for spec, _ in specs] == ["out/teacher", "out/student"] and not codes
    assert all(resume and spec.train.steps == 7 and spec.train.batch_size == 32 for spec, resume in specs)
    assert specs[1][0].teacher["run"] == "out/teacher"
    assert (str(asked.run), str(asked.out), asked.seeds, asked.also) == ("out/student", "out/report", 1, [])
    said = capsys.readouterr().out
    assert "[0:00] teacher: a masked-diffusion transformer" in said and "out/report/report.html" in said


def test_the_control_is_behind_a_flag(called):
    specs, (asked,), _ = called("--control", "--seeds", "3")
    assert [str(spec.train.run) for spec, _ in specs][2:] == ["runs/demo/one-component"]
    assert asked.also == ["one-component=runs/demo/one-component"] and asked.seeds == 3


def test_a_stopped_training_ends_the_demo(called):
    specs, asked, codes = called("out", finished=False)
    assert len(specs) == 1 and not asked and codes == [process_group.STOPPED_BY_SIGNAL]


@pytest.mark.slow
def test_the_whole_demo_tiny_and_once_more(tmp_path):
    overrides = [part for override in TINY for part in ("--set", override)]
    command = [sys.executable, str(ROOT / "tools/demo.py"), str(tmp_path), *overrides]
    first, again = (subprocess.run(command, capture_output=True, text=True, cwd=ROOT) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    rows = json.loads((tmp_path / "report/eval.json").read_text())["rows"]
    models = {(row["model"], row["mixture_size"]) for row in rows}
    assert models == {("teacher", None), ("student", "inf"), ("student", "product")}
    assert "At 1 step the student" in first.stdout and (tmp_path / "report/report.html").is_file()
    assert again.stdout.count("nothing to do") == 2
