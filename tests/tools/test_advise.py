"""The advice on M for a run folder."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = """
task: distill
seed: 0
data: digits
process: absorbing
teacher: {name: denoiser, parameterisation: subs, backbone: {name: dit, width: 16, depth: 1, heads: 2}}
student: {head: {name: readout, rank: 4}}
latent: uniform
objective:
  components: 2
  time: {name: uniform}
  sampler: ancestral
  data: {weight: 1.0, estimator: monte-carlo, gate: {shape: constant, scale: 1.0}}
train:
  run: student
  steps: 2
  batch_size: 4
  optimizer: {lr: 1e-3, betas: [0.9, 0.99], weight_decay: 0.0}
  schedule: {warmup: 0, decay: constant}
  clip: 1.0
  ema: null
  precision: fp32
  diagnostics_every: 2
eval: {sampler: ancestral, metrics: [entropy], steps: [1], mixture_sizes: [inf], samples: 8, seeds: 1, batch_size: 8}
"""


@pytest.mark.slow
def test_a_trained_run_is_advised(tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC)

    def run(*command):
        done = subprocess.run(
            [sys.executable, *map(str, command)], cwd=tmp_path, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    trained = run(ROOT / "tools/train.py", "--spec", "spec.yaml")
    assert "suggested_components" in trained and "effective_components" in trained
    told = run(
        ROOT / "tools/advise.py", "--run", "student", "--sizes", "1,2,4", "--examples", "4", "--repeats", "3"
    ).splitlines()
    assert [line.split()[0] for line in told[1:4]] == ["1", "2", "4"] and told[-1].startswith("suggested: components: ")
    assert told[-1].endswith("(the run has 2)")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_trouble_b09_the_data_are_where_the_model_is(device, tmp_path, monkeypatch, capsys):
    """Everything that a model is given lies on its device, wherever the data set gives it."""
    import torch

    from di4c.commands import advise
    from di4c.contracts import Batch
    from di4c.evaluation import loaded
    from tests.evaluation.conftest import PRETRAIN, distill, write_run

    run = write_run(tmp_path / "student", distill(write_run(tmp_path / "teacher", PRETRAIN)))
    made, seen = [], []

    def load(path):
        made.append(loaded.load(path, device=device))
        made[0].student.register_forward_pre_hook(
            lambda module, given: seen.extend(x for x in given if torch.is_tensor(x))
        )
        return made[0]

    moved = []
    monkeypatch.setattr(advise, "load", load)
    monkeypatch.setattr(
        Batch, "to", lambda batch, where, real=Batch.to: (moved.append(str(where)), real(batch, where))[1]
    )
    assert advise.main(["--run", str(run), "--sizes", "1,2", "--examples", "2", "--repeats", "2"]) == 0
    assert moved == [device] and {x.device.type for x in seen} <= {device}
    assert "suggested: components" in capsys.readouterr().out


def test_trouble_b09_a_batch_is_moved():
    import torch

    from di4c.contracts import Batch

    moved = Batch(torch.zeros(2, 3), torch.zeros(2)).to("meta")
    assert moved.x_0.device.type == moved.cond.device.type == "meta" and Batch(torch.zeros(1)).to("meta").cond is None
