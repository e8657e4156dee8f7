"""The VQ-image specs as they stand, at tiny size: tokenizer, teacher, student, samples, metrics."""

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import di4c
from di4c.config.build import build, build_metrics, build_sampler, portable
from di4c.config.registry import Registry
from di4c.config.spec import read_spec
from di4c.contracts import Draws, Generation
from di4c.mixture.student import mixture_denoiser

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "tools" / "specs"
TINY = {
    "tokenizer": [f"objective.tokenizer.{key}" for key in ("ch=8", "ch_mult=[1,1,1]", "num_codes=32")],
    "teacher": ["teacher.backbone.width=32", "teacher.backbone.depth=1", "teacher.backbone.mlp_width=32"],
    "student": ["objective.components=4", "latent.atoms=4"],
    "one-component": [],
}
SHORT = [
    "train.steps=2",
    "train.batch_size=4",
    "train.schedule.warmup=0",
    "train.checkpoint_every=0",
    "train.diagnostics_every=0",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder with clothes/, noise in Fashion-MNIST's files."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "clothes"
    folder.mkdir()
    for name, number in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        labels = (np.arange(number) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DI4C_CACHE", str(tmp_path / "cache"))
    return tmp_path


def overrides(stage):
    where = "data.path" if stage == "tokenizer" else "data.dataset.path"
    return [f"{where}=clothes", *TINY[stage], *SHORT]


def one_step(stage):
    """The parts of a spec after one step of its objective, exported where the next spec looks for them."""
    spec = read_spec(SPECS / f"fashion-vq-{stage}.yaml", overrides(stage))
    parts = build(spec, Registry.default())
    draws = Draws(0, count=4)
    if hasattr(parts.objective, "prepare"):
        parts.objective.prepare(draws)
    terms = parts.objective.train()(parts.data.split("train").batch(torch.arange(4)), draws, 0)
    assert terms["loss"].shape == (4,) and terms["loss"].isfinite().all()
    terms["loss"].mean().backward()
    folder = spec.train.run / "export"
    folder.mkdir(parents=True)
    model = {name: value.detach().clone() for name, value in parts.objective.model.state_dict().items()}
    save_file(model, str(folder / "model.safetensors"))
    config = {"format": "di4c-export", "version": 1, "spec": portable(spec, parts.teacher).to_dict()}
    (folder / "config.json").write_text(json.dumps(config))
    return spec, parts


def test_the_three_fashion_specs_follow_one_another(here):
    one_step("tokenizer")
    one_step("teacher")
    one_step("one-component")
    spec, parts = one_step("student")
    assert (parts.data.num_positions, parts.data.num_states, parts.data.num_classes) == (49, 32, 10)
    draws = Draws(1, count=12)
    denoiser = mixture_denoiser(parts.student.eval(), parts.latent, draws.child("lambda"))
    sampler = build_sampler(spec, Registry.default(), parts.process, parts.teacher)
    cond = torch.arange(12) % 10
    x_0 = sampler.sample(denoiser, parts.process.prior(49, draws), 2, cond, draws)
    assert (x_0 < 32).all()
    generation = Generation(x_0, cond, 2, sampler, denoiser, None, draws)
    for metric in build_metrics(spec, Registry.default(), parts.data, parts.process).values():
        assert all(np.isfinite(value) for value in metric(generation).values())
    assert parts.data.save_grid(x_0, here / "grid", cond).stat().st_size > 0


def test_the_control_is_a_product_model_trained_on_the_data_at_least_as_long():
    """With one component the student's control variate would leave the teacher as it is, hence the plain estimator."""
    spec, control = (read_spec(SPECS / f"fashion-vq-{name}.yaml").to_dict() for name in ("student", "one-component"))
    assert control["objective"].pop("components") == control["latent"].pop("atoms") == 1
    assert spec["objective"].pop("components") == spec["latent"].pop("atoms") == 32
    assert control["objective"].pop("data")["estimator"] == "monte-carlo" and spec["objective"].pop("data")
    assert control["train"].pop("steps") >= spec["train"].pop("steps")
    for one in (spec, control):
        del one["train"]["run"], one["eval"]["mixture_sizes"]
    assert spec == control


def test_the_full_scale_spec_states_the_published_constants():
    spec = read_spec(SPECS / "imagenet256-maskgit-di4c.yaml")
    assert spec.objective["components"] == 32 and spec.train.batch_size == 4
    assert spec.objective["distillation"] == {"weight": 20.0, "max_time": 0.05, "max_time_inclusive": True}
    assert spec.objective["data"]["gate"] == {"shape": "sigmoid", "scale": 0.1}
    assert spec.objective["sampler"]["gumbel_temperature"] == 4.5 and spec.process["schedule"] == "arccos"


@pytest.mark.slow
def test_the_chain_runs_through_the_trainer(here):
    for stage in ("tokenizer", "teacher", "student"):
        sets = [part for override in overrides(stage) for part in ("--set", override)]
        command = [sys.executable, str(ROOT / "tools" / "train.py"), "--spec", str(SPECS / f"fashion-vq-{stage}.yaml")]
        done = subprocess.run([*command, *sets], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    x_0 = di4c.load("runs/fashion-vq-student").sample(4, 2, seed=0)
    assert x_0.shape == (4, 49) and (x_0 < 32).all()
