"""tools/train.py as users start it, on a real spec of a few seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from di4c import command_line
from di4c.commands.train import main
from tests.engine.launching import DEEPSPEED, PYTHONPATH, free_port, losses, relative
from tests.forked import run

TOP = Path(__file__).parents[2]
TRAIN = TOP / "tools" / "train.py"
SPEC = {
    "task": "pretrain",
    "seed": 0,
    "data": "digits",
    "process": {"name": "absorbing", "schedule": "log-linear"},
    "teacher": {
        "name": "denoiser",
        "parameterisation": "subs",
        "backbone": {"name": "dit", "width": 16, "depth": 1, "heads": 2, "grid": [8, 8], "time_conditioning": False},
    },
    "objective": {"name": "nelbo", "time": {"name": "uniform", "low": 0.001}, "label_dropout": 0.1},
    "train": {
        "run": "run", "steps": 50, "batch_size": 8, "optimizer": {"lr": 2e-3, "betas": [0.9, 0.99], "weight_decay": 0.02},
        "schedule": {"warmup": 5, "decay": "cosine", "final": 0.02}, "clip": 1.0, "ema": 0.9, "precision": "fp32",
        "checkpoint_every": 20, "log_every": 1, "diagnostics_every": 0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("command") / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    return path


def train(spec: Path, *arguments: str, launcher: tuple[str, ...] = (sys.executable,)) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.run(
        [*launcher, str(TRAIN), "--spec", str(spec), *arguments], cwd=spec.parent, capture_output=True, text=True,
        timeout=600, env=clean | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH},
    )  # fmt: skip


def test_deepspeed_on_two_ranks_gives_the_losses_of_plain_python(spec, monkeypatch, capsys):
    """The issue's acceptance: 1e-4 relative over 50 steps. Afterwards the run is protected."""
    deepspeed = (*DEEPSPEED, "--num_accelerators", "2", "--master_port", str(free_port()))
    two = train(spec, "--set", "train.run=two", "--set", "deepspeed.zero_optimization.stage=2", launcher=deepspeed)
    assert two.returncode == 0, two.stdout + two.stderr
    one = run([TRAIN, "--spec", spec, "--set", f"train.run={spec.parent / 'one'}"])
    assert one.returncode == 0, one.stdout + one.stderr
    assert relative(losses(spec.parent / "two"), losses(spec.parent / "one")) < 1e-5
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(command_line, "leave", sys.exit)  # the process goes on
    with pytest.raises(SystemExit) as refused:
        main(["--spec", str(spec), "--set", f"train.run={spec.parent / 'one'}"])
    told = capsys.readouterr().err
    assert refused.value.code == 1 and "add --resume" in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "train.batch_size=0"], "train.batch_size"),
        (["--set", "train.stepz=5"], "train.stepz"),
        (["--set", "deepspeed.optimizer.type=Adam"], "deepspeed.optimizer"),
    ],
)
def test_a_mistake_in_the_spec_is_one_message_before_torch_is_imported(spec, arguments, expected):
    done = train(spec, *arguments, launcher=(sys.executable, "-X", "importtime"))
    assert done.returncode == 1
    messages = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(messages) == 1 and messages[0].startswith("error: ") and expected in messages[0]
    assert "| torch\n" not in done.stderr.replace(" ", "").replace("|torch\n", "| torch\n")
