"""A file of the data set is changed while a run is stopped: it is told, and the restored file's run goes on as if nothing had been."""

import os
import subprocess
import sys

import pytest
import yaml

from tests.engine.launching import PYTHONPATH, TOP, losses
from tests.scale.systems import STEPS, job, systems


def train(spec, *options):
    command = [sys.executable, str(TOP / "tools/train.py"), "--spec", str(spec), *options]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_changed_text_stops_a_resumption_and_the_restored_one_continues(tmp_path):
    values = job(systems(tmp_path)["language"], f"{tmp_path}/run", {"stage": 0}, checkpoint_every=2)["spec"]
    spec, text = tmp_path / "spec.yaml", tmp_path / "text.txt"
    spec.write_text(yaml.safe_dump(values))
    assert train(spec, "--set", "train.steps=3").returncode == 0
    original = text.read_text()
    text.write_text(original.replace("sailor", "tailor", 1))
    refused = train(spec, "--resume")
    assert refused.returncode and "the data have changed since" in refused.stderr
    text.write_text(original)
    resumed, alone = train(spec, "--resume"), train(spec, "--set", f"train.run={tmp_path}/alone")
    assert resumed.returncode == alone.returncode == 0, resumed.stderr + alone.stderr
    assert len(losses(tmp_path / "run")) == STEPS and losses(tmp_path / "run") == losses(tmp_path / "alone")
