"""The pixel specs, each built, stepped and sampled at tiny size on files of the published layouts."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from di4c.config.build import build, build_metrics, build_sampler, portable
from di4c.config.registry import Registry
from di4c.config.spec import read_spec
from di4c.contracts import Draws
from di4c.mixture.student import mixture_denoiser
from di4c_plugins.backbones.tauldr_unet import TauLDRUNet

SPECS = Path(__file__).parents[2] / "tools" / "specs"
TINY_FASHION = ["data.size=7", "data.levels=4"]
TINY_UNET = (
    "{name: tauldr-unet, shape: [%d, %d, %d], channels: 4, multipliers: [1], "
    "res_blocks: 1, attention_at: 0, dropout: 0.0}"
)


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """A folder of idx files with 40 training and 20 held-out images."""
    folder, generator = tmp_path_factory.mktemp("fashion"), np.random.default_rng(0)
    for prefix, n in (("train", 40), ("t10k", 20)):
        for name, values in (
            ("images-idx3", generator.integers(0, 256, (n, 28, 28))),
            ("labels-idx1", np.arange(n) % 10),
        ):
            header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            file = folder / f"{prefix}-{name}-ubyte.gz"
            file.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))
    return folder


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A folder of binary batches with 4 images each."""
    folder, generator = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        records = generator.integers(0, 256, (4, 3073))
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())
    return folder


def built(name, *overrides):
    """(spec, parts, registry) of a spec file under tools/specs."""
    spec = read_spec(SPECS / name, overrides)
    registry = Registry.default(spec.plugins)
    return spec, build(spec, registry), registry


def step(spec, parts, size=4, unused=()):
    """One loss and its gradient: every parameter of the exported model that is called has one, and it is finite."""
    batch = parts.data.split("train").batch(torch.arange(size), Draws(1, count=size))
    loss = parts.objective(batch, Draws(0, count=size), 0)["loss"]
    loss.mean().backward()
    assert loss.shape == (size,) and loss.isfinite().all()
    for key, parameter in parts.objective.model.named_parameters():
        called = not any(fragment in key for fragment in unused)
        assert (parameter.grad is not None and parameter.grad.isfinite().all()) or not called, key


def sample_and_measure(spec, parts, registry, denoiser, steps=2):
    sampler = build_sampler(spec, registry, parts.process, parts.teacher)
    draws = Draws(0, count=6)
    x_1 = parts.process.prior(parts.data.num_positions, draws.child("prior"))
    x_0 = sampler.sample(denoiser, x_1, steps, None, draws.child("sampler"))
    assert x_0.shape == (6, parts.data.num_positions) and x_0.min() >= 0 and x_0.max() < parts.data.num_states
    assert build_metrics(spec, registry, parts.data, parts.process)


def exported(folder, spec, parts):
    """A run's export of the teacher, as the trainer writes it."""
    folder.mkdir()
    save_file(
        {key: value.contiguous() for key, value in parts.teacher.backbone.state_dict().items()},
        folder / "model.safetensors",
    )
    about = {"format": "di4c-export", "version": 1, "task": "pretrain", "step": 1, "weights": "raw", "commit": None}
    (folder / "config.json").write_text(json.dumps(about | {"spec": portable(spec, parts.teacher).to_dict()}))
    return folder


def test_fashion14(fashion, tmp_path):
    """The teacher's spec, then the student's on the teacher's export."""
    common = [f"data.path={fashion}", *TINY_FASHION]
    spec, parts, registry = built("fashion14-teacher.yaml", *common, f"teacher.backbone={TINY_UNET % (1, 7, 7)}")
    step(spec, parts)
    sample_and_measure(spec, parts, registry, parts.teacher.freeze().predict)
    run = exported(tmp_path / "teacher", spec, parts)
    few = ["student.head.blocks=4", "latent.atoms=2", "objective.components=2", "objective.targets=2"]
    spec, parts, registry = built("fashion14-student.yaml", *common, f"teacher.run={run}", *few)
    step(spec, parts, unused=("backbone.lemb_modules", "backbone.tlam_mix", "downsampling_modules.0.dense1"))
    denoiser = mixture_denoiser(parts.student.eval(), parts.latent, Draws(1, count=6))
    sample_and_measure(spec, parts, registry, denoiser)


def test_fashion14_specs_agree():
    """The student sees the data and the process that its teacher was trained on; M is at most 8."""
    teacher, student = read_spec(SPECS / "fashion14-teacher.yaml"), read_spec(SPECS / "fashion14-student.yaml")
    assert teacher.data == student.data and teacher.process == student.process
    assert student.teacher["run"] == str(teacher.train.run)
    assert student.objective["components"] <= 8 and 16 <= student.data["levels"] <= 32


def test_fashion14_control_has_the_students_budget():
    """It differs from the student's run in the number of components alone."""
    student, control = (read_spec(SPECS / f"fashion14-{name}.yaml").to_dict() for name in ("student", "one-component"))
    assert (control["objective"].pop("components"), control["latent"].pop("atoms")) == (1, 1)
    del student["objective"]["components"], student["latent"]["atoms"]
    for spec in (student, control):
        del spec["train"]["run"], spec["eval"]["mixture_sizes"]
    assert control == student


def test_cifar10(cifar, tmp_path):
    """The published run on a checkpoint of the published layout; frechet's 64 dimensions are too many for 20 images."""
    torch.manual_seed(0)
    unet = TauLDRUNet(192, 16, shape=[3, 8, 8], channels=4, multipliers=[1], res_blocks=1, attention_at=0, dropout=0.0)
    model = {f"net.{key}": value for key, value in unet.state_dict().items()}
    model |= {"ema_decay": 0.9, "ema_num_updates": 1, "ema_shadow_params": list(unet.state_dict().values())}
    torch.save({"model": model, "optimizer": {}, "n_iter": 1}, tmp_path / "ckpt.pt")
    overrides = [
        f"data.path={cifar}", "data.size=8", "data.levels=16", f"teacher.path={tmp_path / 'ckpt.pt'}",
        f"teacher.backbone={TINY_UNET % (3, 8, 8)}", "objective.components=2", "objective.targets=2",
        "objective.distillation_copies=2",
    ]  # fmt: skip
    spec, parts, registry = built("cifar10-tauldr-di4c.yaml", *overrides)
    step(spec, parts, size=2)
    denoiser = mixture_denoiser(parts.student.eval(), parts.latent, Draws(1, count=6))
    sample_and_measure(spec, parts, registry, denoiser, steps=3)
    hybrid = "eval.sampler={name: hybrid, teacher_steps: 2, sampler: {name: tauldr-ancestral, min_time: 0.02}}"
    spec = read_spec(SPECS / "cifar10-tauldr-di4c.yaml", [*overrides, hybrid])
    sampler = build_sampler(spec, registry, parts.process, parts.teacher)
    assert sampler.teacher.loaded is parts.teacher and sampler.sampler.min_time == 0.02
    sample_and_measure(spec, parts, registry, denoiser, steps=3)


def test_cifar10_teacher(cifar):
    overrides = [f"data.path={cifar}", "data.size=8", "data.levels=16", f"teacher.backbone={TINY_UNET % (3, 8, 8)}"]
    spec, parts, registry = built("cifar10-tauldr-teacher.yaml", *overrides)
    step(spec, parts)
    sample_and_measure(spec, parts, registry, parts.teacher.freeze().predict, steps=3)
